"""Processes that are killed or asked to end: what they leave is never taken for a file, and the next run removes it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.data import ownership
from cloudcover.runtime.files import atomic, remove_leftovers, sha256, write_text
from helpers.writers import KILL, WRITERS

SEEDS = range(20)


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


def hashes(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


@pytest.mark.parametrize("name", list(WRITERS))
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, name):
    subprocess.run([sys.executable, "-c", KILL + WRITERS[name], tmp_path / name], capture_output=True, check=False)
    assert parts(tmp_path)
    subprocess.run([sys.executable, "-c", KILL.split("os.fsync")[0] + WRITERS[name], tmp_path / name], check=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_another_process_writes_at_the_moment_stays(tmp_path):
    with atomic(tmp_path / "table.csv") as part:
        remove_leftovers(tmp_path)
        assert part.exists()
        part.write_text("x")
    assert (tmp_path / "table.csv").read_text() == "x"


NAMES = st.from_regex(r"\.?[a-z-]{1,4}(-[a-z0-9_]{7,9})?(\.part)?(\.tif)?", fullmatch=True)


@given(st.sets(NAMES, max_size=6))
def test_only_names_of_temporary_files_are_removed(names):
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            Path(folder, name).write_text("x")
        remove_leftovers(Path(folder))
        left = {path.name for path in Path(folder).iterdir()}
        assert {n for n in names if not re.fullmatch(r"\..*-[a-z0-9_]{8}\.part(\.tif)?", n)} == left


def test_a_link_of_that_name_is_left_alone(tmp_path):
    write_text(tmp_path / "mine.tif", "mine")
    (tmp_path / ".x-abcdefgh.part.tif").symlink_to("mine.tif")
    remove_leftovers(tmp_path)
    assert (tmp_path / "mine.tif").exists()
    assert (tmp_path / ".x-abcdefgh.part.tif").is_symlink()


def test_a_stage_removes_what_was_left_beside_files_that_it_no_longer_writes(tmp_path):
    ownership.claim(tmp_path)
    ownership.reserve(tmp_path, ["a/old.tif", "b.tif"])
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.old.tif.part").write_text("half")
    (tmp_path / ".b-abcdefgh.part.tif").write_text("half")
    ownership.reserve(tmp_path, ["c.tif"])
    ownership.prune(tmp_path, ["c.tif"])
    assert parts(tmp_path) == []


def test_sigterm_removes_what_is_half_written(tmp_path):
    command = [sys.executable, "-m", "cloudcover", "synth", tmp_path / "set", "--chips", "400"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.rglob("[!.]*.tif")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.rglob("[!.]*.tif"))
    assert not (tmp_path / "set/files.csv").exists()
    assert parts(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_write_like_an_error(tmp_path, number):
    program = (
        "import sys, time; from pathlib import Path; from cloudcover.runtime.files import atomic\n"
        "from cloudcover.runtime.signals import end_cleanly; end_cleanly()\n"
        "with atomic(Path(sys.argv[1])) as part:\n    part.write_text('half'); print('now', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, tmp_path / "table.csv"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert parts(tmp_path)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_under_nohup_a_closed_terminal_ends_nothing():
    program = (
        "import os, signal; from cloudcover.runtime.signals import end_cleanly; end_cleanly()\n"
        "os.kill(os.getpid(), signal.SIGHUP); print('still here')"
    )
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", program]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "still here\n"
