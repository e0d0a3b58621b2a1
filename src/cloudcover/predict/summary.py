"""Shares of cloud, clear and unknown pixels in masks, per image and within polygons."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import bounds, geometry_mask

from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.grid import Grid
from cloudcover.data.ownership import refuse_other_file
from cloudcover.predict.polygons import Polygons, on_grid
from cloudcover.runtime.files import replaceable
from cloudcover.runtime.text import NAMED, listed

log = logging.getLogger(__name__)


class Summary:
    """The rows of a summary table; safe to use from several threads.

    Args:
        path: Table to write, `tables.SHARES`; a link to it stays a link.
        polygons: Areas with separate rows for every image that they touch.

    Raises:
        FolderError: A file of that name exists and is not such a table.
        OSError: The folder of the table cannot be created, or the table is read-only.
    """

    def __init__(self, path: Path, polygons: Polygons | None = None) -> None:
        refuse_other_file(path, tables.SHARES)
        self.path = replaceable(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)  # now rather than after a long run
        self.polygons = polygons
        self._rows: list[dict[str, object]] = []
        self._touched: set[str] = set()
        self._adding = threading.Lock()

    def add(self, name: str, grid: Grid, mask: NDArray[np.uint8]) -> None:
        """Add the shares of a mask, H x W uint8 of {0, 1, 255}."""
        rows = [_row(name, "", mask)]
        if self.polygons and grid.crs:
            rows += [_row(name, area, pixels) for area, pixels in _inside(self.polygons, grid, mask)]
        with self._adding:
            self._rows += rows
            self._touched |= {str(row["polygon"]) for row in rows}

    def write(self) -> None:
        """Write the table, sorted by image; polygons keep their own order, and those without any row are logged."""
        areas = self.polygons.areas if self.polygons else []
        if outside := [area.name for area in areas if area.name not in self._touched]:
            log.warning(
                "%d of %d polygons cover no pixel of any image and have no row: %s",
                len(outside),
                len(areas),
                listed(outside, NAMED),
            )
        rows = sorted(self._rows, key=lambda row: str(row["image"]))
        tables.SHARES.write(pd.DataFrame(rows, columns=list(tables.SHARES.columns)), self.path)


def _row(image: str, polygon: str, mask: NDArray[np.uint8]) -> dict[str, object]:
    cloud, unknown = (np.count_nonzero(mask == value) for value in (1, IGNORE_INDEX))
    shares = (cloud / mask.size, (mask.size - cloud - unknown) / mask.size, unknown / mask.size)
    return dict(zip(tables.SHARES.columns, (image, polygon, mask.size, *shares), strict=True))


def _inside(polygons: Polygons, grid: Grid, mask: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and pixels, in one row, of each area that covers the centre of at least one pixel."""
    place = Affine(*grid.transform)
    for area in polygons.areas:
        if (geometry := on_grid(area.geometry, polygons.crs, grid)) is None:
            continue
        left, bottom, right, top = bounds(geometry)
        corners = [~place @ (x, y) for x in (left, right) for y in (bottom, top)]
        columns, rows = (
            _reach([corner[axis] for corner in corners], n) for axis, n in ((0, grid.width), (1, grid.height))
        )
        part = mask[rows, columns]
        if part.size:
            moved = place @ Affine.translation(columns.start, rows.start)
            pixels = part[geometry_mask([geometry], part.shape, moved, invert=True)]
            if pixels.size:
                yield area.name, pixels


def _reach(places: list[float], length: int) -> slice:
    """Return the pixels of an axis between the smallest and the largest position."""
    return slice(max(0, math.floor(min(places))), max(0, min(length, math.ceil(max(places)))))
