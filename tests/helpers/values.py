"""Rasters with scale, offset, nodata and mask, and the same set as other products would store it."""

from __future__ import annotations

import logging

import rasterio
from rasterio.transform import from_origin

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.sources.fetch import fetch

TAGS = {"scale": 0.0001, "offset": -0.1}
"""Of a Sentinel-2 product of processing baseline 04.00."""


def write(path, pixels, nodata=None, scale=1.0, offset=0.0, mask=None, internal=True):
    """Writes a single-band GeoTIFF with tags, and a mask that is True where there are data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "nodata": nodata, "crs": "EPSG:32633"}
    profile |= {"height": pixels.shape[0], "width": pixels.shape[1], "transform": from_origin(5e5, 5e6, 10, 10)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "w", **profile) as output:
        output.write(pixels, 1)
        if (scale, offset) != (1, 0):
            output.scales, output.offsets = [scale], [offset]
        if mask is not None:
            output.write_mask(mask)
    return path


def rewrite(path, change=lambda pixels: pixels, **tags):
    with rasterio.open(path) as source:
        pixels = source.read(1)
    return write(path, change(pixels).astype(pixels.dtype), **tags)


def shifted(root, **tags):
    """Adds 1000 to the DN of all bands below a folder."""
    for path in root.rglob("B*.tif"):
        rewrite(path, lambda pixels: pixels + 1000, **tags)


def darkened(root):
    """Makes all bands below a folder begin as dark as vegetation and water do."""
    for path in root.rglob("B*.tif"):
        rewrite(path, lambda pixels: pixels // 4)


def bring(source, target, **changes):
    """Fetches the set by the local source."""
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams.model_validate({}), 0, target / "raw", target / "truth")
    return target / "raw"


def warnings_in(caplog):
    """Lists the messages of warnings and errors."""
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]
