"""What a reader finds out about an image before any pixel is read: where each band is and what its values mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cloudcover.data.values import DTYPES, Stored

GTIFF, JPEG2000, VRT = "GTiff", "JP2OpenJPEG", "VRT"
"""GDAL's drivers that files are opened by, one for each file: other formats can name any file or address."""
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
"""STAC's common names of bands and the bands of Sentinel-2 that they mean; left out are those of several bands."""


@dataclass(frozen=True)
class Request:
    """What is asked of each image.

    Attributes:
        bands: names of the bands in the order of the result, such as `B02`.
        numbers: bands of a multiband raster by number, from 1, in the same order; None: by their descriptions.
        offset: what was added to the DN of sources that say nothing of an offset [DN].
        nodata: value of pixels without data in the result, and in sources that say nothing of them [DN].
    """

    bands: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    offset: int = 0
    nodata: int = 0


@dataclass(frozen=True)
class Layer:
    """Where one band is.

    Attributes:
        band: its name as asked for.
        uri: GDAL's name of the file.
        path: the file that holds it on this machine, or None if it is elsewhere.
        says: what metadata beside the file state of its values; None: the file's own tags count.
        index: number of the band in the file, from 1; None: the file must hold no other one.
        driver: GDAL's driver that opens it.
        dtypes: data types that it may have.
        scaled: whether the file must state a scale or an offset itself.
    """

    band: str
    uri: str
    path: Path | None
    says: Stored | None = None
    index: int | None = None
    driver: str = GTIFF
    dtypes: tuple[str, ...] = DTYPES
    scaled: bool = False

    @property
    def shown(self) -> str:
        """The file in messages: an address without its query, which may hold a key."""
        return str(self.path) if self.path else without_query(self.uri.removeprefix("/vsicurl/"))


@dataclass(frozen=True)
class Plan:
    """How an image is read.

    Attributes:
        layers: one for each asked band, in order.
        says: what was found, for the log.
        doubtful: whether nothing that was found states the offset of products of baseline 04.00, so that the values
            must be looked at (`values.suspected_offset`).
    """

    layers: tuple[Layer, ...]
    says: str
    doubtful: bool = True


def local(band: str, path: Path, **more: Any) -> Layer:
    """Return a layer of a file on this machine, by the driver for its suffix."""
    return Layer(band, str(path), path, driver=driver_of(path.name), **more)


def driver_of(name: str) -> str:
    """GDAL's driver for a file's name: JPEG 2000 by its suffix, otherwise GeoTIFF."""
    return JPEG2000 if name.lower().endswith(".jp2") else GTIFF


def plain_band(text: str) -> str:
    """One spelling for all of a band: `B2`, `b02` and `B02` are `B02`; other texts only lose their case."""
    upper = text.strip().upper()
    match = re.fullmatch(r"B0?(\d{1,2}|8A)", upper)
    return f"B{match[1].zfill(2)}" if match else upper


def described_band(text: str) -> str:
    """Return the same for a description, which may also be a common name such as `blue`."""
    return COMMON_NAMES.get(text.strip().lower()) or plain_band(text)


def without_query(url: str) -> str:
    """Return an address without its query and without a password."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_name(text: str) -> str:
    """Return a name of a product as the stem of a file name: what is neither letter, digit, dot nor dash becomes `_`."""
    return re.sub(r"[^\w.\-]", "_", text).lstrip(".") or "image"
