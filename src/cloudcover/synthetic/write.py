"""Writing of chips as GeoTIFFs in the challenge's layout."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import from_origin

from cloudcover.data.geotiff import write_geotiff
from cloudcover.synthetic.sites import GRID, Scene


@lru_cache(maxsize=128)
def _crs(epsg: int) -> CRS:
    return CRS.from_epsg(epsg)


def write_tiff(
    path: Path, values: NDArray[np.uint8] | NDArray[np.uint16], where: Scene, position: int, nodata: int
) -> None:
    """Write one band, georeferenced by its site and the chip's place in the grid.

    Args:
        path: File to write.
        values: (size, size) uint8 or uint16.
        where: Scene that determines UTM zone, corner and pixel size.
        position: Number of the chip in the grid.
        nodata: Value of pixels without data.
    """
    size = len(values)
    row, column = divmod(position, GRID)
    west = where.site.easting + column * size * where.pixel_m
    north = where.site.northing - row * size * where.pixel_m
    transform = from_origin(west, north, where.pixel_m, where.pixel_m)
    write_geotiff(path, values, {"crs": _crs(where.site.epsg), "transform": transform, "nodata": nodata})
