"""What a folder of downloaded files already holds: a line per finished file, so that a later run fetches the rest.

The journal is in `data/raw/.download/`, next to what is needed only until a download ends. A line is written before
the file is renamed into place: a file without a line is not trusted, and a line without its file means nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cloudcover.runtime.files import atomic, sha256

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


def paths(root: Path) -> set[str]:
    """Files that the journal below `root` names, if there is one."""
    return {entry.path for entry in _entries(root / WORK / "journal.jsonl")}


class Journal:
    """The finished files of a folder; threads may share it."""

    def __init__(self, root: Path, recheck: bool = False) -> None:
        """Read the journal below `root`.

        Args:
            root: Folder of downloaded files.
            recheck: Do not trust modification times: read every file once and compare its hash.
        """
        self.root = root
        self._recheck = recheck
        self._lock = threading.Lock()
        self._file = root / WORK / "journal.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.entries = {entry.path: entry for entry in _entries(self._file)}
        self._write()

    def intact(self, path: str, size: int | None = None, etag: str = "") -> bool:
        """Whether a file is on disk as it was fetched, and still the version that the source has.

        Args:
            path: In the challenge's layout.
            size: Length that the source reports [bytes], or None.
            etag: Version that the source reports, or empty.
        """
        entry = self.entries.get(path)
        if entry is None or (etag and entry.etag and etag != entry.etag):
            return False
        if entry.absent:
            return not self._recheck and size is None
        try:
            found = os.lstat(self.root / path)
        except OSError:
            return False
        if found.st_size != entry.bytes or size not in (None, entry.bytes):
            return False
        if found.st_mtime_ns == entry.mtime_ns and not self._recheck:
            return True
        if sha256(self.root / path) != entry.sha256:
            return False
        if found.st_mtime_ns != entry.mtime_ns:  # touched or copied, the content is the same
            self.add(replace(entry, mtime_ns=found.st_mtime_ns))
        return True

    def add(self, entry: Entry) -> None:
        """Record a finished file."""
        with self._lock:
            self.entries[entry.path] = entry
            self._output.write(_line(entry))
            self._output.flush()

    def publish(self, part: Path, path: str, etag: str, origin: str) -> None:
        """Record a checked temporary file and rename it to `path` in the same folder; see `Entry` for the rest."""
        digest, found = sha256(part), part.stat()
        self.add(Entry(path, found.st_size, digest, found.st_mtime_ns, etag, origin))
        part.replace(self.root / path)

    def keep(self, paths: set[str]) -> None:
        """Forget all other files."""
        self.entries = {path: entry for path, entry in self.entries.items() if path in paths}
        self.close()
        self._write()

    def close(self) -> None:
        """End the journal of this run."""
        self._output.close()

    def _write(self) -> None:
        with atomic(self._file) as part:
            part.write_text("".join(map(_line, self.entries.values())), encoding="utf-8")
        self._output = self._file.open("a", encoding="utf-8")


def _entries(file: Path) -> Iterator[Entry]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield Entry(**json.loads(line))
        except (ValueError, TypeError):
            continue  # the last line of a run that was killed


def _line(entry: Entry) -> str:
    return json.dumps(vars(entry), separators=(",", ":")) + "\n"
