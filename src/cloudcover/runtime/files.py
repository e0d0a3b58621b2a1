"""Files that are always complete or absent: atomic writes, hashes, and the `FileTable` that lists a folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it into place when the block ends without an error.

    Readers see either the old file or the complete new one, which keeps the permissions of the old one. The temporary
    file is removed after an error; after a kill, the next process that writes to the folder removes it. The temporary
    name keeps the suffix, because writers such as pandas and numpy derive the format from it.

    Raises:
        OSError: The disk is full or a quota is exhausted; the error names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if (folder := path.parent.resolve()) not in _swept:
        remove_leftovers(folder)
        _swept.add(folder)
    handle, part = _temporary(path)
    try:
        with full_disk_named(path, part):
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.chmod(_mode(path))
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def full_disk_named(path: Path, part: Path) -> Iterator[None]:
    """Let the error for a full disk name `path`: the system's names no file, or only the temporary one, `part`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and (error.filename is None or str(part) in map(str, (error.filename, error.filename2))):
            message = f"{os.strerror(error.errno)}: the file was not written; free some space and run again"
            raise OSError(error.errno, message, str(path)) from error
        raise


def _temporary(path: Path) -> tuple[int, Path]:
    """Create the temporary file of `atomic`, locked by this process while its handle is open."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=f".part{path.suffix}", dir=path.parent)
        with suppress(OSError):  # a file system that cannot lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):  # noqa: PTH110
            return handle, Path(name)
        os.close(handle)  # another process removed it as a leftover before it was locked


_swept: set[Path] = set()
"""Folders that this process has already checked for leftovers."""
_LEFTOVER = re.compile(r"\..*-[a-z0-9_]{8}\.part(\.[^.]+)?")


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of `atomic` in a folder that were left behind by killed processes.

    Files of running processes are locked, and stay.
    """
    if not folder.is_dir():
        return
    for name in [entry.name for entry in os.scandir(folder) if _LEFTOVER.fullmatch(entry.name)]:
        with suppress(OSError):
            handle = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / name).unlink()
            finally:
                os.close(handle)


def expanded(path: str | PathLike[str]) -> Path:
    """Replace a leading `~`, which a shell leaves in `--out=~/masks` and Python everywhere, by the home folder."""
    whole = Path(path)
    return whole.expanduser() if whole.parts[:1] == ("~",) else whole


def part_of(target: Path) -> Path:
    """Return the temporary name of a file written in steps: hidden, without a TIFF suffix, equal in every run."""
    return target.with_name(f".{target.name}.part")


def _mode(path: Path) -> int:
    """Return the permissions of a file, or those of a new one."""
    if path.is_file():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def replaceable(path: Path) -> Path:
    """Return the file to replace if a user names `path`, which may be a link: the link stays.

    Raises:
        PermissionError: The file is read-only, which `atomic` would ignore.
    """
    file = path.resolve()
    if file.exists() and not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only: `chmod u+w` makes it writable", str(path))
    return file


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, indented and with sorted keys for readable diffs; raise `ValueError` for NaN."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON; raise a `ValueError` that names the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def hash_files(
    paths: Sequence[Path], task: str, progress: bool | None = None, algorithm: Literal["sha256", "md5"] = "sha256"
) -> list[str]:
    """Hash many files on all cores.

    Args:
        paths: Files to hash.
        task: Label of the progress bar.
        progress: Whether to show a progress bar; None: only on a terminal.
        algorithm: Name of the hash algorithm.

    Returns:
        Hexadecimal digest of each file, in the order of `paths`.

    Raises:
        FileNotFoundError: A file is missing.
    """
    bar = tqdm(total=len(paths), desc=task, unit="file", disable=None if progress is None else not progress)

    def digest(path: Path) -> str:
        found = _digest(path, algorithm)
        bar.update()
        return found

    with bar, ThreadPoolExecutor() as pool:  # hashlib releases the GIL
        return list(pool.map(digest, paths))


def sha256(path: Path | str) -> str:
    """Compute the SHA-256 of a file as 64 hexadecimal digits."""
    return _digest(Path(path), "sha256")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fingerprint(value: Any) -> str:
    """Compute the SHA-256 of a JSON value in canonical form, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def derive_seed(seed: int, *names: object) -> int:
    """Derive an independent 31-bit seed for a part of the run, for example `derive_seed(0, "round2", 3)`."""
    return int(fingerprint([seed, *map(str, names)])[:8], 16) & 0x7FFFFFFF
