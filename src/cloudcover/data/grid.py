"""Georeferencing of a raster: size, coordinate reference system and transform, compared by meaning and not as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from affine import Affine

TOLERANCE_PIXELS = 1e-3
"""Maximum difference of corners between equal grids, because writers round transforms differently."""


@dataclass(frozen=True)
class Grid:
    """Georeferencing of a chip: shape [pixels], CRS as text, and affine transform (six numbers in rasterio's order)."""

    height: int
    width: int
    crs: str
    transform: tuple[float, ...]

    def differences(self, other: Grid) -> str:
        """Describe what differs, with both values; return an empty text for equal grids."""
        same = {
            "height": self.height == other.height,
            "width": self.width == other.width,
            "crs": same_crs(self.crs, other.crs),
            "transform": self._aligned(other),
        }
        wrong = [name for name, is_same in same.items() if not is_same]
        return "; ".join(f"{name} {getattr(self, name)} against {getattr(other, name)}" for name in wrong)

    @property
    def placed(self) -> bool:
        """Whether the file is georeferenced."""
        return bool(self.crs) or not Affine(*self.transform).is_identity

    @property
    def pixel(self) -> float:
        """Return the side of a square as large as a pixel [unit of the CRS]."""
        return math.sqrt(abs(Affine(*self.transform).determinant))

    def same_area(self, other: Grid) -> bool:
        """Return whether both cover the same area of one named CRS, with pixels of any size."""
        stretch = (other.width / self.width, other.height / self.height)
        return bool(self.crs) and same_crs(self.crs, other.crs) and self._aligned(other, stretch)

    def _aligned(self, other: Grid, stretch: tuple[float, float] = (1.0, 1.0)) -> bool:
        """Return whether the corners of this grid are, times `stretch`, at the same pixels of the other one.

        The tolerance is `TOLERANCE_PIXELS`.
        """
        here, there = Affine(*self.transform), Affine(*other.transform)
        if here == there and stretch == (1.0, 1.0):
            return True
        if here.is_degenerate or there.is_degenerate:
            return False
        moved = ~there @ here
        corners = [(x, y) for x in (0, self.width) for y in (0, self.height)]
        expected = [(x * stretch[0], y * stretch[1]) for x, y in corners]
        # Comparisons with NaN are false.
        return all(
            abs(a - b) <= TOLERANCE_PIXELS
            for at, aim in zip(corners, expected, strict=True)
            for a, b in zip(moved @ at, aim, strict=True)
        )


@lru_cache(maxsize=256)
def same_crs(one: str, other: str) -> bool:
    """Return whether two texts, such as `EPSG:32633` and its WKT, are one CRS; an empty text equals only another."""
    if one == other or not (one and other):
        return one == other
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return bool(CRS.from_user_input(one) == CRS.from_user_input(other))
    except CRSError:
        return False
