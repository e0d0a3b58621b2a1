"""Shares of cloud, clear and unknown pixels in masks, per image and within polygons."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import bounds, geometry_mask
from rasterio.warp import transform_geom

from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.grid import Grid
from cloudcover.data.ownership import refuse_other_file
from cloudcover.runtime.files import read_json
from cloudcover.runtime.text import plain


class Polygon(NamedTuple):
    """An area from a GeoJSON file.

    Attributes:
        name: The feature's `name` or `id`, or its number from 1.
        geometry: GeoJSON `Polygon` or `MultiPolygon`.
    """

    name: str
    geometry: dict[str, Any]


class Polygons(NamedTuple):
    """Areas with their CRS as text."""

    areas: list[Polygon]
    crs: str


class Summary:
    """The rows of a summary table; safe to use from several threads.

    Args:
        path: Table to write, `tables.SHARES`.
        polygons: Areas with separate rows for every image that they touch.

    Raises:
        FolderError: A file of that name exists and is not such a table.
    """

    def __init__(self, path: Path, polygons: Polygons | None = None) -> None:
        refuse_other_file(path, tables.SHARES)
        self.path = path
        self.polygons = polygons
        self._rows: list[dict[str, object]] = []
        self._adding = threading.Lock()

    def add(self, name: str, grid: Grid, mask: NDArray[np.uint8]) -> None:
        """Add the shares of a mask, H x W uint8 of {0, 1, 255}."""
        rows = [_row(name, "", mask)]
        if self.polygons and grid.crs:
            rows += [_row(name, area, pixels) for area, pixels in _inside(self.polygons, grid, mask)]
        with self._adding:
            self._rows += rows

    def write(self) -> None:
        """Write the table, sorted by image; polygons keep their own order."""
        rows = sorted(self._rows, key=lambda row: str(row["image"]))
        tables.SHARES.write(pd.DataFrame(rows, columns=list(tables.SHARES.columns)), self.path)


def read_polygons(path: Path) -> Polygons:
    """Read the areas of a GeoJSON file: a collection of features, a feature or a geometry.

    Coordinates are longitude and latitude (RFC 7946), unless an older file names another CRS.

    Raises:
        ValueError: It is not GeoJSON, or contains no or unsupported geometries; the message names the file and the
            feature.
    """
    content = read_json(path)
    features = content.get("features", [content]) if isinstance(content, dict) else []
    if not isinstance(features, list):
        raise ValueError(f"{path}: its features are no list: expected a GeoJSON file with polygons")
    areas: list[Polygon] = []
    for number, feature in enumerate(features, 1):
        geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if not isinstance(geometry, dict) or kind not in ("Polygon", "MultiPolygon"):
            raise ValueError(f"{path}: feature {number} is {kind or 'no geometry'}, expected Polygon or MultiPolygon")
        if not _is_sound(geometry):
            raise ValueError(f"{path}: feature {number} is no valid {kind}: expected closed rings of [x, y] numbers")
        areas.append(Polygon(_name(feature, number, {area.name.lower() for area in areas}), geometry))
    if not areas:
        raise ValueError(f"{path} contains no polygon: expected a GeoJSON file with Polygon or MultiPolygon geometries")
    named = content.get("crs") or {}
    if isinstance(named, dict):
        named = _members(named.get("properties")).get("name", "")
    crs = str(named) or "EPSG:4326"
    try:
        CRS.from_user_input(crs)
    except CRSError as error:
        raise ValueError(f"{path}: its CRS {crs!r} is unknown: {error}") from None
    return Polygons(areas, crs)


def _members(value: object) -> dict[str, Any]:
    """Return a JSON object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def _is_sound(geometry: dict[str, Any]) -> bool:
    """Return whether the coordinates of a geometry are rings of finite numbers; rasterio crashes on texts."""
    coordinates: Any = geometry.get("coordinates")
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    try:
        rings = [np.asarray(ring) for polygon in polygons or () for ring in polygon]
    except (ValueError, TypeError):
        return False
    return bool(rings) and all(
        ring.dtype.kind in "if" and ring.ndim == 2 and len(ring) >= 4 and ring.shape[1] >= 2 and np.isfinite(ring).all()
        for ring in rings
    )


def _name(feature: dict[str, Any], number: int, taken: set[str]) -> str:
    properties = _members(feature.get("properties"))
    found = next((str(v) for v in (properties.get("name"), feature.get("id"), properties.get("id")) if v), "")
    name = plain(found) or str(number)
    return name if name.lower() not in taken else f"{name} #{number}"


def _row(image: str, polygon: str, mask: NDArray[np.uint8]) -> dict[str, object]:
    cloud, unknown = (np.count_nonzero(mask == value) for value in (1, IGNORE_INDEX))
    shares = (cloud / mask.size, (mask.size - cloud - unknown) / mask.size, unknown / mask.size)
    return dict(zip(tables.SHARES.columns, (image, polygon, mask.size, *shares), strict=True))


def _inside(polygons: Polygons, grid: Grid, mask: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and pixels, in one row, of each area that covers the centre of at least one pixel."""
    place = Affine(*grid.transform)
    for area in polygons.areas:
        geometry = transform_geom(polygons.crs, grid.crs, area.geometry)
        left, bottom, right, top = bounds(geometry)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            continue  # too far away for the image's projection
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
