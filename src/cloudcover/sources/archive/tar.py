"""Safe reading of a tar.gz: links, names that lead out of it, and decompression bombs are refused."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from cloudcover.sources.remote.errors import ArchiveError

LARGEST_MEMBER = 64 << 20
"""Longest file in an archive [bytes]; a band of 512 x 512 pixels has half a megabyte."""
_GROWTH, _LEAST_LIMIT = 200, 1 << 30
"""Most bytes per byte of an archive, whose images are compressed already; and what any archive may hold [bytes]."""
_CHUNK = 1 << 20
"""Most bytes at once. `tarfile` reads headers of any length that an archive claims in one go, files in portions."""


class BoundedGzip(gzip.GzipFile):
    """A gzip file with limits on its total size and on each read, against decompression bombs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.limit = max(_LEAST_LIMIT, _GROWTH * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes; raise `ArchiveError` beyond the limits."""
        if size is None or not 0 <= size <= _CHUNK:
            raise ArchiveError(f"{self.name}: refused, a header claims {size} bytes")
        if self.tell() + size > self.limit:
            raise ArchiveError(f"{self.name}: refused, it holds more than {self.limit} bytes: a decompression bomb")
        return super().read(size)


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the regular files of an archive, one after another; each can be read until the next is requested.

    Raises:
        ArchiveError: An absolute name, a name with `..`, a link, a device, a member that is too large, a
            decompression bomb, or an archive that is truncated or damaged.
    """
    try:
        with BoundedGzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member
                if reason := _harm(member):
                    raise ArchiveError(f"{path}: refused at {member.name!r}: {reason}; nothing from it is kept")
                if file := archive.extractfile(member):
                    yield member, file
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"{path} cannot be read to its end: {error}") from None


def _harm(member: tarfile.TarInfo) -> str | None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        return "its name leads out of the archive"
    if not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        return "it is a link, a device or another special file"
    if not 0 <= member.size <= LARGEST_MEMBER:  # below 0 tarfile would go backwards, for ever
        return f"it claims {member.size} bytes, expected {LARGEST_MEMBER} at most"
    return None
