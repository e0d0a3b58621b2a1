"""Areas of a GeoJSON file on the grid of an image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import bounds
from rasterio.warp import transform_bounds, transform_geom

from cloudcover.data.grid import Grid
from cloudcover.runtime.files import read_json
from cloudcover.runtime.text import plain

EDGES = 100
"""Number of edges along an image's side: straight lines in degrees are curves in its projection."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""


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


def read_polygons(path: Path) -> Polygons:
    """Read the areas of a GeoJSON file: a collection of features, a feature or a geometry.

    Coordinates are longitude and latitude (RFC 7946), unless an older file names another CRS.

    Raises:
        ValueError: It is not GeoJSON, contains no or unsupported geometries, or has coordinates that are not degrees;
            the message names the file and the feature.
    """
    content = read_json(path)
    features = content.get("features", [content]) if isinstance(content, dict) else []
    if not isinstance(features, list):
        raise ValueError(f"{path}: its features are not a list: expected a GeoJSON file with polygons")
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
        degrees = CRS.from_user_input(crs).is_geographic
    except CRSError as error:
        raise ValueError(f"{path}: its CRS {crs!r} is unknown: {error}") from None
    for number, area in enumerate(areas, 1):
        if degrees and (corner := _beyond_degrees(area.geometry)):
            raise ValueError(
                f"{path}: feature {number} has the corner {corner}, which is not longitude and latitude: convert the "
                "file, for example with `ogr2ogr -t_srs EPSG:4326 OUT IN`"
            )
    return Polygons(areas, crs)


def on_grid(geometry: dict[str, Any], crs: str, grid: Grid) -> dict[str, Any] | None:
    """Return the part of an area near an image, in the CRS of the image; None if there is none.

    Only that part is projected, because a projection is defined near the image only.

    Args:
        geometry: GeoJSON `Polygon` or `MultiPolygon`.
        crs: CRS of its coordinates.
        grid: Grid of the image, with a CRS.
    """
    corners = [Affine(*grid.transform) @ (x, y) for x in (0, grid.width) for y in (0, grid.height)]
    (left, *_, right), (bottom, *_, top) = (sorted(corner[axis] for corner in corners) for axis in (0, 1))
    box = transform_bounds(grid.crs, crs, left, bottom, right, top)
    if all(map(math.isfinite, box)) and box[0] < box[2]:  # else the image is at a pole or the antimeridian
        geometry = _near(geometry, box)
    if not geometry["coordinates"]:
        return None
    projected: dict[str, Any] = transform_geom(crs, grid.crs, geometry)
    return projected if all(map(math.isfinite, bounds(projected))) else None


def _near(geometry: dict[str, Any], box: Box) -> dict[str, Any]:
    """Cut an area to a box with a margin, and divide its edges."""
    side = max(box[2] - box[0], box[3] - box[1])
    margin = side / EDGES
    wide = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    polygons = []
    for polygon in _polygons(geometry):
        rings = [_divided(_cut(np.asarray(ring, float)[:-1, :2], wide), side / EDGES) for ring in polygon]
        if len(rings[0]):
            polygons.append([ring.tolist() for ring in rings if len(ring)])
    return {"type": "MultiPolygon", "coordinates": polygons}


def _cut(points: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """Cut a ring N x 2, without its last point, to a box (Sutherland and Hodgman 1974)."""
    for axis, limit, sign in ((0, box[0], 1), (1, box[1], 1), (0, box[2], -1), (1, box[3], -1)):
        depth = sign * (points[:, axis] - limit)
        inside, depth_after = depth >= 0, np.roll(depth, -1)
        crosses = inside != (depth_after >= 0)
        share = np.divide(depth, depth - depth_after, where=crosses, out=np.zeros(len(points)))
        borders = points + share[:, np.newaxis] * (np.roll(points, -1, axis=0) - points)
        points = np.stack([points, borders], axis=1)[np.stack([inside, crosses], axis=1)]
    return points


def _divided(points: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Divide the edges of a ring N x 2 into parts of a maximum length, and repeat its first point at the end."""
    edges = np.roll(points, -1, axis=0) - points
    counts = np.maximum(1, np.ceil(np.hypot(*edges.T) / longest)).astype(int)
    parts = [
        point + np.arange(n)[:, np.newaxis] / n * edge for point, edge, n in zip(points, edges, counts, strict=True)
    ]
    return np.concatenate([*parts, points[:1]])


def _polygons(geometry: dict[str, Any]) -> list[Any]:
    """Return the polygons of a geometry, each a list of rings."""
    coordinates = geometry.get("coordinates")
    return [coordinates] if geometry["type"] == "Polygon" else coordinates or []


def _beyond_degrees(geometry: dict[str, Any]) -> list[float] | None:
    """Return a corner of a geometry that cannot be longitude and latitude, or None."""
    corners = (corner for polygon in _polygons(geometry) for ring in polygon for corner in ring)
    return next((list(corner[:2]) for corner in corners if abs(corner[0]) > 360 or abs(corner[1]) > 90), None)


def _members(value: object) -> dict[str, Any]:
    """Return a JSON object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def _is_sound(geometry: dict[str, Any]) -> bool:
    """Return whether the coordinates of a geometry are rings of finite numbers; rasterio crashes on texts."""
    try:
        rings = [np.asarray(ring) for polygon in _polygons(geometry) for ring in polygon]
    except (ValueError, TypeError):
        return False
    return bool(rings) and all(map(_is_ring, rings))


def _is_ring(ring: NDArray[Any]) -> bool:
    shaped = ring.dtype.kind in "if" and ring.ndim == 2 and len(ring) >= 4 and ring.shape[1] >= 2
    return shaped and bool(np.isfinite(ring).all()) and bool((ring[0, :2] == ring[-1, :2]).all())


def _name(feature: dict[str, Any], number: int, taken: set[str]) -> str:
    properties = _members(feature.get("properties"))
    given = (properties.get("name"), feature.get("id"), properties.get("id"))
    found = next((str(value) for value in given if value not in (None, "")), "")
    name = plain(found) or str(number)
    return name if name.lower() not in taken else f"{name} #{number}"
