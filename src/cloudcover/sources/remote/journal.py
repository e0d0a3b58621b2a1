"""What a folder of downloaded files already holds: a line per finished file, so that any later run fetches the rest.

The journal lies in `data/raw/.download/`, beside what is only needed until a download ends. A line is written before
the file is renamed into place: a file without a line is not trusted, and a line without its file means nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from cloudcover.runtime.files import atomic, sha256
from cloudcover.runtime.locks import hold

WORK = ".download"
"""Folder below `data/raw` for the journal, the lock and unfinished archives."""


@dataclass(frozen=True)
class Entry:
    """A finished file.

    Attributes:
        path: in the challenge's layout.
        bytes: length.
        sha256: of the bytes.
        mtime_ns: modification time, by which a change on disk is noticed without reading [ns].
        etag: version that the server gave, or empty.
        origin: where it came from, without secrets.
        absent: the server said that there is no such file (an unlabelled chip); nothing is on disk.
    """

    path: str
    bytes: int
    sha256: str
    mtime_ns: int
    etag: str
    origin: str
    absent: bool = False


def paths(root: Path) -> set[str]:
    """Files that the journal below `root` names, if there is one."""
    file = root / WORK / "journal.jsonl"
    return {entry.path for entry in _entries(file.read_text(encoding="utf-8"))} if file.exists() else set()


class Journal:
    """The finished files of a folder."""

    def __init__(self, root: Path, recheck: bool = False) -> None:
        """Reads the journal below `root`.

        Args:
            root: the folder of downloaded files.
            recheck: trust no modification time, read every file once and compare its hash.
        """
        self.root = root
        self._recheck = recheck
        self._checked: set[str] = set()
        self._file = root / WORK / "journal.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        self.entries = {entry.path: entry for entry in _entries(text)}
        self._output = self._file.open("a", encoding="utf-8")
        if len(text.splitlines()) != len(self.entries):
            self._rewrite()

    def intact(self, path: str, size: int | None = None, etag: str = "") -> bool:
        """Whether a file is on disk as it was fetched, and still the version that the server has.

        Args:
            path: in the challenge's layout.
            size: length that the server tells [bytes], or None.
            etag: version that the server tells, or empty.
        """
        entry = self.entries.get(path)
        if entry is None or (etag and entry.etag and etag != entry.etag):
            return False
        if entry.absent:
            return not self._recheck and size is None
        if size is not None and entry.bytes != size:
            return False
        full = self.root / path
        try:
            found = os.lstat(full)
        except OSError:
            return False
        if found.st_size != entry.bytes:
            return False
        if found.st_mtime_ns == entry.mtime_ns and (not self._recheck or path in self._checked):
            return True
        if sha256(full) != entry.sha256:
            return False
        self._checked.add(path)
        if found.st_mtime_ns != entry.mtime_ns:  # touched or copied, the content is the same
            self.add(replace(entry, mtime_ns=found.st_mtime_ns))
        return True

    def add(self, entry: Entry) -> None:
        """Records a finished file."""
        self.entries[entry.path] = entry
        self._output.write(_line(entry))
        self._output.flush()

    def publish(self, part: Path, path: str, digest: str, etag: str, origin: str) -> None:
        """Records a checked temporary file and renames it into place, in the same folder.

        Args:
            part: the temporary file.
            path: in the challenge's layout.
            digest: SHA-256.
            etag: version, or empty.
            origin: where it came from, without secrets.
        """
        found = part.stat()
        self.add(Entry(path, found.st_size, digest, found.st_mtime_ns, etag, origin))
        part.replace(self.root / path)

    def keep(self, paths: set[str]) -> None:
        """Forgets all other files."""
        self.entries = {path: entry for path, entry in self.entries.items() if path in paths}
        self._rewrite()

    def close(self) -> None:
        """Ends the journal of this run."""
        self._output.close()

    def _rewrite(self) -> None:
        self.close()
        with atomic(self._file) as part:
            part.write_text("".join(map(_line, self.entries.values())), encoding="utf-8")
        self._output = self._file.open("a", encoding="utf-8")


def _entries(text: str) -> Iterator[Entry]:
    for line in text.splitlines():
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue  # the last line of a run that was killed


def _line(entry: Entry) -> str:
    return json.dumps(vars(entry), separators=(",", ":")) + "\n"


def locked(root: Path) -> AbstractContextManager[None]:
    """Keep a second download out of `root`.

    Raises:
        FolderBusyError: Another download works in `root`.
        OSError: The folder cannot be written.
    """
    return hold(root / WORK / "lock", f"another download works in {root}")
