"""A gzip stream that can't blow up: neither the sum of its bytes nor a single read is without limit."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

_CHUNK = 1 << 20
_GROWTH = 200
"""Most bytes per byte of the archive; its images are compressed already, a whole archive hardly grows."""


class ArchiveError(ValueError):
    """An archive cannot be used; the message names it, what is wrong and where."""


class BoundedGzip:
    """A gzip file, decompressed, for `tarfile`.

    `tarfile` reads headers of any length that an archive claims in one go; a file's own bytes it reads in the portions
    that its user asks for.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file; the limit is 200 times its length, and at least 1 GiB."""
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115
        self._limit = max(1 << 30, _GROWTH * path.stat().st_size)

    def __enter__(self) -> BoundedGzip:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def tell(self) -> int:
        """Position in the decompressed bytes."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Reads at most `size` bytes.

        Raises:
            ArchiveError: more than 1 MiB at once, more than the limit in all, or damaged data.
        """
        if not 0 <= size <= _CHUNK:
            raise ArchiveError(f"{self._path}: refused, a header claims {size} bytes")
        if self.tell() + size > self._limit:
            raise ArchiveError(f"{self._path}: refused, it holds more than {self._limit} bytes: a decompression bomb")
        try:
            return self._file.read(size)
        except zlib.error as error:
            raise ArchiveError(f"{self._path} is damaged: {error}") from None

    def seek(self, position: int, whence: int = 0) -> int:
        """Moves to an absolute position, forwards by reading."""
        if whence != 0:
            raise ValueError("only absolute positions are supported")
        if position < self.tell():
            return self._file.seek(position)
        while (rest := position - self.tell()) > 0:
            if not self.read(min(rest, _CHUNK)):
                break
        return self.tell()
