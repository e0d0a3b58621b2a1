"""What a folder of downloaded files already holds: a line per finished file, so that a later run fetches the rest.

A line is written before the file is renamed into place: a file without a line is not trusted, and a line without its
file means nothing.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from cloudcover.runtime.files import sha256, write_text

WORK = ".download"
"""Folder below `data/raw` for the journal, the lock, the source's tables and unfinished archives."""


@dataclass(frozen=True)
class Entry:
    """A finished file.

    Attributes:
        path: In the challenge's layout.
        bytes: Length.
        sha256: Of its bytes.
        mtime_ns: Modification time, by which a change on disk is noticed without reading [ns].
        etag: Version that the source gave, or empty.
        origin: Where it came from, without secrets.
        absent: The server said that there is no such file (an unlabelled chip); nothing is on disk.
    """

    path: str
    bytes: int
    sha256: str
    mtime_ns: int
    etag: str
    origin: str
    absent: bool = False


class Journal:
    """The finished files of the folder `root`; threads may share it."""

    def __init__(self, root: Path, recheck: bool = False) -> None:
        """Read the journal; with `recheck` no modification time is trusted, and every file is read and compared."""
        self.root = root
        self.entries: dict[str, Entry] = {}
        self._recheck = recheck
        self._lock = threading.Lock()
        self._file = root / WORK / "journal.jsonl"
        for line in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            try:
                entry = Entry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a run that was killed
            self.entries[entry.path] = entry
        self.keep(set(self.entries))

    def intact(self, path: str, size: int | None = None, etag: str = "") -> bool:
        """Whether a file is on disk as it was fetched, with the length [bytes] and version that the source reports."""
        entry, full = self.entries.get(path), self.root / path
        if entry is None or (etag and entry.etag and etag != entry.etag):
            return False
        if entry.absent:
            return not self._recheck and size is None
        try:
            found = os.lstat(full)
        except OSError:
            return False
        if found.st_size != entry.bytes or size not in (None, entry.bytes):
            return False
        if self._recheck or found.st_mtime_ns != entry.mtime_ns:
            if sha256(full) != entry.sha256:
                return False
            self.add(replace(entry, mtime_ns=found.st_mtime_ns))  # touched or copied, the content is the same
        return True

    def add(self, entry: Entry) -> None:
        """Record a finished file."""
        with self._lock, self._file.open("a", encoding="utf-8") as output:
            self.entries[entry.path] = entry
            output.write(_line(entry))

    def publish(self, part: Path, path: str, etag: str, origin: str) -> None:
        """Record a checked temporary file and rename it to `path`, in the same folder; see `Entry`."""
        digest, found = sha256(part), part.stat()
        self.add(Entry(path, found.st_size, digest, found.st_mtime_ns, etag, origin))
        part.replace(self.root / path)

    def keep(self, paths: set[str]) -> None:
        """Forget all other files."""
        self.entries = {path: entry for path, entry in self.entries.items() if path in paths}
        write_text(self._file, "".join(map(_line, self.entries.values())))


def _line(entry: Entry) -> str:
    return json.dumps(vars(entry), separators=(",", ":")) + "\n"
