"""What a reader knows about an image before reading pixels: the place of each band and the meaning of its values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from cloudcover.data.values import DTYPES, Stored

GTIFF, JPEG2000, VRT = "GTiff", "JP2OpenJPEG", "VRT"
"""GDAL drivers for opening files, one per file, because other formats can refer to any file or address."""
COMMON_NAMES = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "nir": "B08",
    "nir08": "B8A",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
"""STAC common names with the corresponding Sentinel-2 bands, except names of several bands."""


@dataclass(frozen=True)
class Request:
    """The requested bands and conversions for each image.

    Attributes:
        bands: Names of the bands in the order of the result, such as `B02`.
        numbers: Band numbers of a multiband raster, from 1, in the same order; None: by their descriptions.
        offset: Offset that was added to the DN of sources that declare no offset [DN]; None: unknown, treated as 0
            where a source may have none.
        nodata: Value of pixels without data in the result, and in sources that declare none [DN].
    """

    bands: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    offset: int | None = None
    nodata: int = 0


@dataclass(frozen=True)
class Layer:
    """The place of one band.

    Attributes:
        band: Requested name of the band.
        uri: GDAL's name of the file.
        path: Local file that contains it, or None if it is remote.
        says: Meaning of its values according to metadata beside the file; None: the file's own tags apply.
        index: Number of the band in the file, from 1; None: the file must have only this band.
        driver: GDAL driver that opens it.
        dtypes: Allowed data types.
        scaled: Whether the file itself must declare a scale or an offset.
        nodata: Stored value of pixels without data according to metadata beside the file; None: that of `says`, or
            else that of the file.
    """

    band: str
    uri: str
    path: Path | None
    says: Stored | None = None
    index: int | None = None
    driver: str = GTIFF
    dtypes: tuple[str, ...] = DTYPES
    scaled: bool = False
    nodata: float | None = None

    @property
    def shown(self) -> str:
        """Name of the file for messages: an address is shown without its query, which may contain a key."""
        return str(self.path) if self.path else without_query(self.uri.removeprefix("/vsicurl/"))


@dataclass(frozen=True)
class Plan:
    """Instructions for reading an image.

    Attributes:
        layers: One layer per requested band, in order.
        says: Description for the log.
        doubtful: Whether the offset of baseline 04.00 is not declared anywhere, so that the values must be checked
            (`offsets.suspected_offset`).
    """

    layers: tuple[Layer, ...]
    says: str
    doubtful: bool = True


def local(band: str, path: Path, **more: Any) -> Layer:
    """Create a layer for a local file, with the driver for its suffix."""
    return Layer(band, str(path), path, driver=driver_of(path.name), **more)


def existing(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder, by its name in any case if there is none in the expected one."""
    path = folder / name
    if path.exists() or not folder.is_dir():
        return path
    return min((other for other in folder.iterdir() if other.name.lower() == name.lower()), default=path)


def driver_of(name: str) -> str:
    """Return the GDAL driver for a file name: JPEG 2000 by its suffix, otherwise GeoTIFF."""
    return JPEG2000 if name.lower().endswith(".jp2") else GTIFF


def plain_band(text: str) -> str:
    """Normalise the spelling of a band: `B2`, `b02` and `B02` become `B02`; other texts only lose their case."""
    upper = text.strip().upper()
    match = re.fullmatch(r"B0?(\d{1,2}|8A)", upper)
    return f"B{match[1].zfill(2)}" if match else upper


def described_band(text: str) -> str:
    """Normalise a band description, which may also be a common name such as `blue`."""
    return COMMON_NAMES.get(text.strip().lower()) or plain_band(text)


def encoded(url: str) -> str:
    """Encode the characters of an address that none may have, such as spaces; what is encoded stays."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def without_query(url: str) -> str:
    """Remove the query and password from an address."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(text: str) -> str:
    """Turn the name of a file, folder or address into the stem of a visible file: what no name may hold becomes `_`."""
    return "".join(c if c.isprintable() and c not in "/\\" else "_" for c in text).lstrip(".") or "image"
