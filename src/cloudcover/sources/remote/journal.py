"""The journal of a download: one line per finished file, so that a later run fetches only the rest.

A line is written before the file is renamed into place: a file without a line is not trusted, and a line without its
file means nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cloudcover.data import tables
from cloudcover.runtime.files import full_disk_named, sha256, write_text

WORK = ".download"
"""Folder below `data/raw` for the journal, the lock, the source's tables and unfinished archives."""


@dataclass(frozen=True)
class Entry:
    """A finished file.

    Attributes:
        path: Path in the challenge's layout.
        bytes: Length of the file.
        sha256: SHA-256 of the file.
        mtime_ns: Modification time, which reveals a change on disk without reading the file [ns].
        etag: Version that the source listed, or empty.
        origin: Where it came from, without secrets.
        absent: Whether the server has no such file (the label of an unlabelled chip); nothing is on disk.
    """

    path: str
    bytes: int
    sha256: str
    mtime_ns: int
    etag: str
    origin: str
    absent: bool = False

    def line(self) -> str:
        """Return the entry as a line of JSON."""
        return json.dumps(vars(self), separators=(",", ":")) + "\n"


class Journal:
    """The finished files of the folder `root`; threads may share it."""

    def __init__(self, root: Path, recheck: bool = False) -> None:
        """Read the journal; with `recheck` no modification time is trusted, and every file is read and compared."""
        self.root = root
        self._recheck = recheck
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._file = root / WORK / "journal.jsonl"
        for line in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a run that was killed
            self._entries[entry.path] = entry
        self.keep(self._entries.keys())

    def intact(self, path: str, origin: str, size: int | None = None, etag: str = "") -> bool:
        """Return whether a file is on disk as it was fetched.

        Args:
            path: Path in the challenge's layout.
            origin: Its present source; without equal versions, a file from another source is another file.
            size: Length that the source reports [bytes], or None.
            etag: Version that the source reports, or empty.
        """
        entry, full = self._entries.get(path), self.root / path
        if entry is None or (etag and entry.etag and etag != entry.etag) or size not in (None, entry.bytes):
            return False
        if entry.origin != origin and not (etag and etag == entry.etag):
            return False
        if entry.absent:
            return not self._recheck
        if not os.path.lexists(full) or (found := full.lstat()).st_size != entry.bytes:
            return False
        if self._recheck or found.st_mtime_ns != entry.mtime_ns:
            if sha256(full) != entry.sha256:
                return False
            self.add(replace(entry, mtime_ns=found.st_mtime_ns))  # touched or copied, the content is the same
        return True

    def add(self, entry: Entry) -> None:
        """Record a finished file."""
        with full_disk_named(self._file, self._file), self._lock, self._file.open("a", encoding="utf-8") as output:
            self._entries[entry.path] = entry
            output.write(entry.line())

    def publish(self, part: Path, path: str, etag: str, origin: str) -> None:
        """Record a checked temporary file and rename it to `path`, in the same folder; see `Entry`."""
        found = part.stat()
        self.add(Entry(path, found.st_size, sha256(part), found.st_mtime_ns, etag, origin))
        part.replace(self.root / path)

    def keep(self, paths: Set[str]) -> None:
        """Forget all other files."""
        self._entries = {path: entry for path, entry in self._entries.items() if path in paths}
        write_text(self._file, "".join(entry.line() for entry in self._entries.values()))

    def manifest(self) -> pd.DataFrame:
        """Return the files that are on disk, by `tables.FILES`."""
        present = [vars(entry) for entry in self._entries.values() if not entry.absent]
        return pd.DataFrame(present, columns=list(tables.FILES.columns))
