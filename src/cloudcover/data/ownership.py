"""Folders that also hold files of a person: only what this program has put there is ever replaced or removed.

The hidden file `.cloudcover` of a folder lists the program's files in it. It is written before they are, so that a run
that is killed at any time can tell its own files from those of others, also where Snakemake has removed the table that
lists them.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from cloudcover.data import tables
from cloudcover.runtime.files import part_of, remove_leftovers, write_text

RECORD = ".cloudcover"
"""Lists the program's files in a folder, a path per line, relative to the folder."""

TABLES = ("files.csv", "masks.csv")
"""Tables of this program that list the files beside them, `path` among their columns."""
_HEADERS = [list(table.columns) for table in (tables.FILES, tables.TRUTH, tables.PREDICTIONS)]


class FolderError(ValueError):
    """A file or folder is not this program's to replace or to remove; the message names it and says what to do."""


def refuse_overlap(source: Path, target: Path, what: str, files: Iterable[Path] = ()) -> None:
    """Refuse a folder to read from that is the folder to write to, or lies in it, or around it.

    Args:
        source: the folder to read.
        target: the folder to write; it need not exist.
        what: names the source in the message, such as `data.path`.
        files: of the source, absolute or from the working directory; none may be a link into the target.

    Raises:
        FolderError: see above; links and other names of a folder are seen through.
    """
    if _inside(source, target) or _inside(target, source):
        raise FolderError(
            f"{what}: {source} and {target}, which gets the results, are one folder or lie in each other: "
            "choose a folder apart from it"
        )
    root = target.resolve()
    for file in files:
        if root in file.resolve().parents:
            raise FolderError(
                f"{what}: {file} is a link into {target}, which gets the results: put the file itself there"
            )


def _inside(inner: Path, outer: Path) -> bool:
    """Return whether a folder is another one or lies in it; also by another name, such as a mount or another case."""
    resolved, root = inner.resolve(), outer.resolve()
    return any(
        path == root or (path.exists() and root.exists() and path.samefile(root))
        for path in (resolved, *resolved.parents)
    )


def claim(root: Path) -> None:
    """Make a folder the program's, by its record; it is made if need be, and may hold hidden files of others.

    Raises:
        FolderError: the folder holds files, but no record or table of this program.
    """
    files = owned(root)
    if not files and not (root / RECORD).exists() and not _tables(root):
        names = sorted(entry.name for entry in os.scandir(root)) if root.exists() else []
        if foreign := [name for name in names if not name.startswith(".")]:
            raise FolderError(
                f"{root} holds {foreign[0]}, and no {RECORD} that says cloudcover made it: choose an empty folder, "
                "or move what is in it"
            )
    _write(root, files)


def owned(root: Path) -> set[str]:
    """Return the program's files below a folder, relative to it, by its record and its tables."""
    files = _recorded(root)
    for table in _tables(root):
        with table.open(encoding="utf-8", newline="") as file:
            files |= {row["path"] for row in csv.DictReader(file) if row["path"]}
    return files


def reserve(root: Path, paths: Collection[str]) -> None:
    """Record files that are about to be written below a folder, and removes what killed runs left beside them.

    Args:
        root: the folder; it is made if need be.
        paths: files relative to it.

    Raises:
        FolderError: one of them exists and is not the program's, or a link would lead it out of the folder.
    """
    files = owned(root)
    for path in sorted(set(paths) - files):
        if os.path.lexists(root / path):
            raise FolderError(
                f"{root / path} was not made by cloudcover and would be overwritten: move it, or choose another folder"
            )
    if away := _led_away(root, paths):
        raise FolderError(
            f"{root / min(away)} lies outside {root}, because a folder on the way is a link: replace the link"
        )
    for folder in {(root / path).parent for path in paths}:
        remove_leftovers(folder)
    _write(root, files | set(paths))


def prune(root: Path, keep: Collection[str]) -> None:
    """Remove the program's files below a folder but `keep`, relative to it; those of others stay.

    What a killed run left half written (`part_of`) goes as well.
    """
    known = owned(root)
    for path in known - _led_away(root, known):
        part_of(root / path).unlink(missing_ok=True)
    others = known - set(keep)
    for path in others - _led_away(root, others):
        full = root / path
        if full.is_symlink() or full.is_file():
            full.unlink()
            _remove_empty(full.parent, root)
    _write(root, set(keep))


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, up to `root`, as long as they are empty."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _led_away(root: Path, paths: Collection[str]) -> set[str]:
    """Those of the paths whose folders are not below `root`, through links or dots."""
    base = root.resolve()
    folders = {(root / path).parent for path in paths}
    outside = {folder for folder in folders if not folder.resolve().is_relative_to(base)}
    return {path for path in paths if (root / path).parent in outside}


def _tables(root: Path) -> list[Path]:
    """Return the program's tables in a folder."""
    found = []
    for path in (root / name for name in TABLES):
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace", newline="") as file:
                if next(csv.reader(file), []) in _HEADERS:
                    found.append(path)
    return found


def _recorded(root: Path) -> set[str]:
    record = root / RECORD
    return set(record.read_text(encoding="utf-8").split("\n")) - {""} if record.is_file() else set()


def _write(root: Path, files: Collection[str]) -> None:
    if not (root / RECORD).exists() or set(files) != _recorded(root):
        write_text(root / RECORD, "".join(f"{path}\n" for path in sorted(files)))
