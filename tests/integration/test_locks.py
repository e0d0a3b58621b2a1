"""The lock of a folder: real processes hold it, end, and are killed; real Snakemake takes it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloudcover.runtime.locks import FolderBusyError, hold
from harness.forked import programs
from helpers.paths import ROOT

HOLD = """
import sys
from pathlib import Path
from cloudcover.runtime.locks import hold
with hold(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
# The kernel answers `flock` with an error from here on, as it does on a file system that cannot lock.
WITHOUT_LOCKS = """
import ctypes, errno, platform, struct
number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | errno.ENOLCK), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program) == 0
"""
SNAKEFILE = f"""
include: "{ROOT / "workflow/rules/lock.smk"}"

rule work:
    output: "done"
    shell: "touch {{output}}.begun; while [ -e wait ]; do sleep 0.05; done; echo complete > {{output}}"
"""


@contextmanager
def holder(path: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock file until its input ends."""
    command = [*prefix, sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture(scope="module")
def elsewhere() -> list[str]:
    """Starts a program on what it takes for another host."""
    if not shutil.which("unshare") or subprocess.run([*ELSEWHERE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces")
    return ELSEWHERE


def test_a_second_holder_is_told_of_the_first(tmp_path):
    with (
        holder(tmp_path / "new" / "lock") as first,
        pytest.raises(FolderBusyError) as error,
        hold(tmp_path / "new" / "lock", "another run works in here"),
    ):
        pass
    start, end = f"another run works in here: process {first.pid} on {socket.gethostname()} since 2", "+00:00 (-c "
    assert str(error.value).startswith(start)
    assert end in str(error.value)
    assert str(error.value).endswith("). Wait until it ends, or stop it.")
    with hold(tmp_path / "new" / "lock", "busy"):
        pass


def test_a_holder_without_a_record_is_an_error_too(tmp_path):
    with holder(tmp_path / "lock"):
        (tmp_path / "lock").write_text("")
        with (
            pytest.raises(FolderBusyError, match=r"^busy: a process that is just starting"),
            hold(tmp_path / "lock", "busy"),
        ):
            pass


def test_a_killed_holder_leaves_nothing_to_mend(tmp_path, caplog):
    with holder(tmp_path / "lock") as first:
        first.kill()
    with hold(tmp_path / "lock", "busy"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""
    assert not caplog.text


def test_a_fork_of_the_holder_neither_frees_nor_keeps_the_lock(tmp_path):
    with hold(tmp_path / "lock", "busy"):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        with pytest.raises(FolderBusyError, match=f"process {os.getpid()} "), hold(tmp_path / "lock", "busy"):
            pass
    with hold(tmp_path / "lock", "busy"):  # the child still lives
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_a_holder_on_another_host_is_named_and_warned_of_if_it_was_killed(tmp_path, caplog, elsewhere):
    with holder(tmp_path / "lock", *elsewhere) as first:
        with (
            pytest.raises(FolderBusyError, match=rf"process {first.pid} on elsewhere"),
            hold(tmp_path / "lock", "busy"),
        ):
            pass
        first.kill()
    with hold(tmp_path / "lock", "busy"):
        assert f"make sure that it is no longer running: process {first.pid} on elsewhere since " in caplog.text
    caplog.clear()
    with holder(tmp_path / "lock", *elsewhere):
        pass
    with hold(tmp_path / "lock", "busy"):
        assert not caplog.text


def test_a_file_system_that_cannot_lock_gives_a_warning(tmp_path):
    command = [sys.executable, "-c", WITHOUT_LOCKS + HOLD, str(tmp_path / "lock")]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert done.stdout == "held\n"
    assert "lock cannot be locked (No locks available): make sure that no other process uses this folder" in done.stderr


def test_a_lock_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(IsADirectoryError, match="lock"), hold(tmp_path / "lock", "busy"):
        pass


def snakemake(python: Path, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [python, "-m", "snakemake", "--cores", "1", "--workflow-profile", str(ROOT / "profiles/default")]
    return subprocess.Popen(
        [*command, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_of_snakemake_holds_its_folder_and_a_killed_one_leaves_nothing_to_mend(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "wait").touch()
    fork = programs() / "python"
    first = snakemake(Path(sys.executable), tmp_path)
    while not (tmp_path / "done.begun").exists():
        assert first.poll() is None, first.communicate()[0]
    second = snakemake(fork, tmp_path, "--quiet", "rules")
    printed = second.communicate(timeout=60)[0]
    assert second.returncode == 1
    assert f"another run works in {tmp_path}: process {first.pid} on {socket.gethostname()} since " in printed
    assert "Wait until it ends, or stop it." in printed
    assert "rule work:" in snakemake(fork, tmp_path, "--dry-run").communicate(timeout=60)[0]
    first.kill()
    (tmp_path / "wait").unlink()  # its job ends by itself
    first.communicate(timeout=60)
    third = snakemake(fork, tmp_path)
    printed = third.communicate(timeout=60)[0]
    assert third.returncode == 0, printed
    assert "1 of 1 steps" in printed, "what the killed run left incomplete is made again"
    assert (tmp_path / ".snakemake/run.lock").read_text() == ""
