"""Pixel sizes in metres."""

from __future__ import annotations

import math

from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from cloudcover.data.grid import Grid


class GridError(ValueError):
    """An image whose pixel size in metres is needed but unknown."""


def pixel_metres(grid: Grid) -> tuple[float, float]:
    """Return the height and width of a pixel [m].

    Raises:
        GridError: The image has no CRS, or its CRS has no unit of length.
    """
    if not grid.crs:
        raise GridError("has no CRS, so its pixel size in metres is unknown: set one with `gdal_edit -a_srs`")
    try:
        crs = CRS.from_user_input(grid.crs)
        factor = crs.linear_units_factor[1] if crs.is_projected else None
    except CRSError:
        factor = None
    if factor is None:
        raise GridError(
            f"has the CRS {grid.crs[:60]}, which is not in metres: reproject it, for example with `gdalwarp -t_srs "
            "EPSG:…`"
        )
    a, b, _, d, e, _ = Affine(*grid.transform)[:6]
    return factor * math.hypot(b, e), factor * math.hypot(a, d)
