"""Writing of GeoTIFFs, with an error if the disk is full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetWriter, MemoryFile

from cloudcover.runtime.files import atomic


def encode_geotiff(
    pixels: NDArray[np.generic],
    profile: Mapping[str, Any],
    complete: Callable[[DatasetWriter], None] | None = None,
) -> bytes:
    """Encode an image as the bytes of a GeoTIFF.

    Args:
        pixels: H x W or B x H x W, in the data type of the file.
        profile: Creation options of rasterio, such as `crs`, `transform`, `nodata` and `compress`. Size, number of
            bands and data type follow from `pixels`; the driver is `GTiff`, or `COG` if given.
        complete: Function that adds more to the open image, such as tags or an internal mask.
    """
    bands = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    count, height, width = bands.shape
    shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile(ext=".tif") as memory:
        with memory.open(**{"driver": "GTiff", **profile, **shape}) as image:
            image.write(bands)
            if complete:
                complete(image)
        return bytes(memory.getbuffer())


def write_geotiff(
    path: Path,
    pixels: NDArray[np.generic],
    profile: Mapping[str, Any],
    complete: Callable[[DatasetWriter], None] | None = None,
) -> None:
    """Write an image as a GeoTIFF, atomically.

    GDAL encodes in memory and Python writes the bytes, because GDAL does not report a disk that fills up while it
    closes a file.

    Args:
        path: File to write; missing folders are created.
        pixels: See `encode_geotiff`.
        profile: See `encode_geotiff`.
        complete: See `encode_geotiff`.

    Raises:
        OSError: The file cannot be written; the message names it, and an older file is kept.
    """
    encoded = encode_geotiff(pixels, profile, complete)
    with atomic(path) as part:
        part.write_bytes(encoded)
