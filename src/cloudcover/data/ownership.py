"""Folders shared with a user's files: the program replaces or removes only what it has put there itself.

The hidden file `.cloudcover` of a folder lists the program's files in it. It is written before they are, so that the
program can recognise its own files even after a killed run, and even if Snakemake has removed the table that lists
them.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudcover.data import tables
from cloudcover.runtime.files import atomic, part_of, remove_leftovers

RECORD = ".cloudcover"
"""Record of the program's files in a folder, one path per line, relative to the folder."""

TABLES = ("files.csv", "masks.csv")
"""The program's tables with a column `path` that lists the files in their folder."""
LONGEST_HEADER = 10_000
"""Length up to which the first line of a file is read [characters]."""
_HEADERS = [list(table.columns) for table in (tables.FILES, tables.TRUTH, tables.PREDICTIONS)]


class FolderError(ValueError):
    """A file or folder that the program must not replace or remove; the message names it and the remedy."""


def refuse_overlap(source: Path, target: Path, what: str, files: Iterable[Path] = ()) -> None:
    """Refuse a folder to read from that equals, contains or is inside the folder to write to.

    Args:
        source: Folder to read.
        target: Folder to write; it need not exist.
        what: Name of the source in the message, such as `data.path`.
        files: Files of the source, absolute or relative to the working directory; none may be a link into the target.

    Raises:
        FolderError: The folders overlap, also through links or other names of a folder.
    """
    if _inside(source, target) or _inside(target, source):
        raise FolderError(
            f"{what}: {source} and {target}, which gets the results, are the same folder or one is inside the other: "
            "choose a separate folder"
        )
    root = target.resolve()
    for file in files:
        if root in Path(os.path.realpath(file)).parents:  # `resolve` fails for a loop of links
            raise FolderError(
                f"{what}: {file} is a link into {target}, which gets the results: replace it with the file itself"
            )


def _inside(inner: Path, outer: Path) -> bool:
    """Return whether a folder equals or is inside another one, also by another name, such as a mount."""
    resolved, root = inner.resolve(), outer.resolve()
    return any(
        path == root or (path.exists() and root.exists() and path.samefile(root))
        for path in (resolved, *resolved.parents)
    )


def refuse_other_file(path: Path, table: tables.Table) -> None:
    """Refuse to replace a file by a table, unless it is one of the same kind (`FolderError`)."""
    if path.exists() and _header(path)[: len(table.columns)] != list(table.columns):
        raise FolderError(f"{path} exists and is not a table of {table.name}: choose another name, or move it")


def _header(path: Path) -> list[str]:
    """Return the columns that the first line of a file names, which need not be a table."""
    if not path.is_file():  # reading a named pipe would wait for ever
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return next(csv.reader([file.readline(LONGEST_HEADER).removeprefix("\ufeff")]), [])


def claim(root: Path) -> None:
    """Make a folder the program's, by a record in it; it is created if necessary, and may hold other hidden files.

    Raises:
        FolderError: The folder holds files, but no record or table of this program.
    """
    with _alone(root):
        _claim(root)


def _claim(root: Path) -> None:
    files = owned(root)
    if not files and not (root / RECORD).exists() and not _tables(root):
        names = sorted(entry.name for entry in os.scandir(root)) if root.exists() else []
        if foreign := [name for name in names if not name.startswith(".")]:
            raise FolderError(
                f"{root} contains {foreign[0]}, but no {RECORD} to show that cloudcover made it: choose an empty "
                "folder, or move its content"
            )
    _write(root, files)


def owned(root: Path) -> set[str]:
    """List the program's files below a folder, relative to it, from its record and its tables."""
    files = _recorded(root)
    for table in _tables(root):
        with table.open(encoding="utf-8", newline="") as file:
            files |= {row["path"] for row in csv.DictReader(file) if row["path"]}
    return files


def reserve(root: Path, paths: Collection[str]) -> None:
    """Record files that are about to be written below a folder, and remove leftovers of killed runs.

    Args:
        root: The folder; it is created if necessary.
        paths: Files relative to it.

    Raises:
        FolderError: One of them exists and is not the program's, a link would lead it out of the folder, or its name
            holds a line break, which the record cannot.
    """
    with _alone(root):
        _reserve(root, paths)


def _reserve(root: Path, paths: Collection[str]) -> None:
    if broken := [path for path in paths if "\n" in path]:
        raise FolderError(f"{root}: the name {min(broken)!r} holds a line break: rename the file or folder")
    files = owned(root)
    for path in sorted(set(paths) - files):
        if os.path.lexists(root / path):
            raise FolderError(
                f"{root / path} was not made by cloudcover and would be overwritten: move it, or choose another folder"
            )
    if away := _led_away(root, paths):
        raise FolderError(
            f"{root / min(away)} is outside {root}, because a folder in its path is a link: replace the link"
        )
    for folder in {(root / path).parent for path in paths}:
        remove_leftovers(folder)
    _write(root, files | set(paths))


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep other processes from changing the record of a folder, which is created if necessary."""
    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that cannot lock
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def prune(root: Path, keep: Collection[str], among: Collection[str] | None = None) -> None:
    """Remove the program's files below a folder except `keep`, relative to it; files of others stay.

    Partial files left by killed runs (`part_of`) are removed as well.

    Args:
        root: The folder.
        keep: Files to keep, relative to it.
        among: Files and subfolders of the folder to look at, so that results of another command, such as masks, stay;
            None: all.
    """
    with _alone(root):
        _prune(root, keep, among)


def _prune(root: Path, keep: Collection[str], among: Collection[str] | None) -> None:
    recorded = owned(root)
    known = {path for path in recorded if among is None or path.partition("/")[0] in among}
    for path in known - _led_away(root, known):
        part_of(root / path).unlink(missing_ok=True)
    others = known - set(keep)
    for path in others - _led_away(root, others):
        full = root / path
        if full.is_symlink() or full.is_file():
            full.unlink()
            _remove_empty(full.parent, root)
    _write(root, set(keep) | (recorded - known))


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and its parents up to `root`, as long as they are empty."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _led_away(root: Path, paths: Collection[str]) -> set[str]:
    """List those of the paths whose folders are not below `root`, because of links or dots."""
    base = root.resolve()
    folders = {(root / path).parent for path in paths}
    outside = {folder for folder in folders if not folder.resolve().is_relative_to(base)}
    return {path for path in paths if (root / path).parent in outside}


def _tables(root: Path) -> list[Path]:
    """List the program's tables in a folder."""
    return [path for path in (root / name for name in TABLES) if _header(path) in _HEADERS]


def _recorded(root: Path) -> set[str]:
    record = root / RECORD
    if not record.exists():
        return set()
    if not record.is_file():
        raise FolderError(f"{record} is not a file, but needed as the list of cloudcover's files in {root}: move it")
    return set(record.read_bytes().decode(errors="surrogateescape").split("\n")) - {""}


def _write(root: Path, files: Collection[str]) -> None:
    if not (root / RECORD).exists() or set(files) != _recorded(root):
        with atomic(root / RECORD) as part:  # names of files need not be text
            part.write_bytes("".join(f"{path}\n" for path in sorted(files)).encode(errors="surrogateescape"))
