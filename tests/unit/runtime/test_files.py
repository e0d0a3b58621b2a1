"""Files are complete or absent."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloudcover.runtime.files import atomic, derive_seed, fingerprint, read_json, sha256, write_json, write_text
from helpers.writers import KILL, WRITERS


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as part:
            part.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk"):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    result = subprocess.run([sys.executable, "-c", KILL + WRITERS[name], path], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert path.read_text() == "old"
    (part,) = (p for p in tmp_path.iterdir() if p != path)
    assert part.name.startswith(".")
    assert ".part" in part.name


def test_the_temporary_file_keeps_the_suffix(tmp_path):
    with atomic(tmp_path / "a.npy") as part:
        assert part.suffix == ".npy"
        part.write_bytes(b"x")


def test_a_written_file_has_ordinary_permissions(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_an_older_files_permissions_are_kept(tmp_path):
    path = tmp_path / "a.txt"
    for mode in (0o600, 0o664, 0o444):
        path.touch()
        path.chmod(mode)
        write_text(path, "x")
        assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"{", b"[" * 100_000])
def test_json_that_cannot_be_read_names_its_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_json_refuses_nan_and_names_a_broken_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json is not valid JSON"):
        read_json(tmp_path / "b.json")


def test_fingerprints_ignore_the_order_of_keys_and_see_values():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 2, "b": 1})


def test_sha256_of_a_known_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(Path(tmp_path / "abc")).startswith("ba7816bf8f01cfea")


def test_seeds_differ_by_part_and_repeat():
    seeds = {derive_seed(0, "round1", fold) for fold in range(5)} | {
        derive_seed(0, "round2", fold) for fold in range(5)
    }
    assert len(seeds) == 10
    assert derive_seed(0, "round1", 3) == derive_seed(0, "round1", 3)
    assert all(0 <= seed < 2**31 for seed in seeds)
