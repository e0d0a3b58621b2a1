"""Checks of the disk space and of fetched files."""

from __future__ import annotations

import logging
import shutil
import struct
from pathlib import Path

import tifffile

from cloudcover.sources.remote.errors import DownloadError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of is refused here


def check(part: Path, path: str, length: int | None = None) -> int:
    """Check a file, and return its length [bytes].

    Args:
        part: The file: a table, or a whole single-band TIFF of uint8 for labels, uint16 for bands.
        path: Path in the challenge's layout.
        length: Expected length [bytes]; None if unknown.

    Raises:
        DownloadError: The length is wrong, or it is an error page, another kind of TIFF, or lacks pixels.
    """
    size = part.stat().st_size
    with part.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    wrong = None
    if length not in (None, size):
        wrong = f"it has {size} bytes, but the listing says {length}"
    elif start in (b"<", b"{", b""):
        wrong = "it is an HTML, XML or JSON page, or empty"
    elif not path.endswith(".csv"):
        wrong = _wrong_with(part, size, "uint8" if "_labels/" in path else "uint16")
    if wrong:
        raise DownloadError(f"{path} is not the expected file: {wrong}")
    return size


def _wrong_with(part: Path, size: int, dtype: str) -> str | None:
    """Explain what is wrong with a TIFF, from its header: GDAL would notice missing pixels only on reading them."""
    try:
        with tifffile.TiffFile(part) as tiff:
            page = tiff.pages.first
            found = f"{page.samplesperpixel} bands of {page.dtype}"
            end = max(begin + count for begin, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    except (tifffile.TiffFileError, struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"its TIFF header cannot be read ({error or type(error).__name__})"
    if end > size:
        return f"it is cut off: pixels reach to byte {end}, the file has {size}"
    return None if found == f"1 bands of {dtype}" else f"it has {found}, expected one of {dtype}"


def check_space(folder: Path, need: int) -> None:
    """Refuse to fetch `need` bytes into `folder` unless 64 MiB stay free; `DownloadError` names both and the folder."""
    free = shutil.disk_usage(folder).free
    if need + (64 << 20) > free:
        raise DownloadError(
            f"{folder} needs {need / 1e9:.2f} GB for the files that are missing, but only {free / 1e9:.2f} GB are "
            "free: make room, or start with a part of the set (data.subset)"
        )
