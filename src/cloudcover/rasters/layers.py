"""What a reader knows about an image before reading pixels: the place of each band and the meaning of its values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from cloudcover.data.values import DTYPES, Stored

GTIFF, JPEG2000, VRT = "GTiff", "JP2OpenJPEG", "VRT"
"""GDAL drivers for opening files, one per file, because other formats can refer to any file or address."""
SCHEMES = ("http", "https", "s3")
"""Schemes of the addresses of rasters."""
HTTP, S3 = "/vsicurl/", "/vsis3/"
"""Prefixes of GDAL's names of files behind addresses and in buckets."""
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
        scale: Reflectance of a stored value of 1 in sources that declare no scale; None: 1 for floating-point numbers,
            0.0001 for integers.
    """

    bands: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    offset: int | None = None
    nodata: int = 0
    scale: float | None = None


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
        floats: Meaning of floating-point values, if it is not that of `says`; unscaled: the file's own tags apply.
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
    floats: Stored | None = None

    @property
    def shown(self) -> str:
        """Name of the file for messages: an address is shown without its query, which may contain a key."""
        if self.path:
            return str(self.path)
        bucket = self.uri.removeprefix(S3)
        return without_query(self.uri.removeprefix(HTTP)) if bucket == self.uri else f"s3://{bucket}"


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


def described_as(band: str, texts: Sequence[str]) -> list[int]:
    """Return the positions of the descriptions of a band.

    Landsat has a single near-infrared band, with the name of the narrower one.
    """
    wanted = described_band(band)
    found = [place for place, text in enumerate(texts) if described_band(text) == wanted]
    if not found and wanted == COMMON_NAMES["nir"]:
        found = [place for place, text in enumerate(texts) if text.strip().lower() == "nir08"]
    return found


def remote(url: str) -> str:
    """Return GDAL's name of a file behind an address of `SCHEMES`."""
    scheme, _, rest = url.partition("://")  # GDAL knows schemes in lower case only
    return S3 + rest if scheme.lower() == "s3" else f"{HTTP}{scheme.lower()}://{encoded(rest)}"


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
