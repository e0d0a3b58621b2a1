"""The members of a tar.gz, of which nothing can harm: no links, no names that lead out of it, no bombs."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from cloudcover.sources.archive.stac import ArchiveError

LARGEST_MEMBER = 64 << 20
"""Longest file in an archive [bytes]; a band of 512 x 512 pixels has half a megabyte."""

_CHUNK = 1 << 20
_LEAST_LIMIT = 1 << 30
_MOST_MEMBERS = 2_000_000
_GROWTH = 200
"""Most bytes per byte of the archive; its images are compressed already, a whole archive hardly grows."""


class BoundedGzip(gzip.GzipFile):
    """A gzip file that yields at most 200 times its length, or 1 GiB, and only 1 MiB at once.

    `tarfile` reads headers of any length that an archive claims in one go; a file's own bytes it reads in the portions
    that its user asks for.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.limit = max(_LEAST_LIMIT, _GROWTH * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        """Read at most `size` bytes; raises `ArchiveError` for more than the limits."""
        if size is None or not 0 <= size <= _CHUNK:
            raise ArchiveError(f"{self.name}: refused, a header claims {size} bytes")
        if self.tell() + size > self.limit:
            raise ArchiveError(f"{self.name}: refused, it holds more than {self.limit} bytes: a decompression bomb")
        return super().read(size)


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """The regular files of an archive, one after the other; each can be read until the next is asked for.

    Raises:
        ArchiveError: An absolute name, a name with `..`, a link, a device, a member that is too large, a
            decompression bomb, or an archive that is cut off or damaged.
    """
    try:
        with BoundedGzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            number = 0
            while member := archive.next():
                number += 1
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member
                _refuse(path, member, number)
                if member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member, file
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"{path} cannot be read to its end: {error}") from None


def _refuse(path: Path, member: tarfile.TarInfo, number: int) -> None:
    name = PurePosixPath(member.name)
    reason = None
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        reason = "its name leads out of the archive"
    elif not (member.isdir() or member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
        reason = "it is a link, a device or another special file"
    elif member.size > LARGEST_MEMBER:
        reason = f"it has {member.size} bytes, more than {LARGEST_MEMBER}"
    elif number > _MOST_MEMBERS:
        reason = f"the archive has more than {_MOST_MEMBERS} members"
    if reason:
        raise ArchiveError(f"{path}: refused at {member.name!r}: {reason}; nothing of it is kept")
