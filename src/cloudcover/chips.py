"""One chip on disk: reading and checking its bands and its label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

UNKNOWN = 255
"""Value of label pixels that nobody knows: left out of loss, metric, coverage and audit."""
DN_PER_REFLECTANCE = 10_000.0
"""Digital numbers per unit of reflectance in Sentinel-2 products."""


class ChipError(ValueError):
    """A chip cannot be used; `band` names the file that is to blame (`label` for the label)."""

    def __init__(self, band: str, reason: str) -> None:
        super().__init__(f"{band}: {reason}")
        self.band = band
        self.reason = reason


@dataclass(frozen=True)
class Grid:
    """Where a chip lies: shape [pixels], CRS and affine transform (six numbers, rasterio's order)."""

    height: int
    width: int
    crs: str
    transform: tuple[float, ...]

    def differences(self, other: Grid) -> str:
        """What differs, with both values, or an empty text."""
        pairs = [
            (name, getattr(self, name), getattr(other, name))
            for name in ("height", "width", "crs", "transform")
            if getattr(self, name) != getattr(other, name)
        ]
        return "; ".join(f"{name} {mine} against {theirs}" for name, mine, theirs in pairs)


@dataclass(frozen=True)
class Chip:
    """A chip in memory.

    Attributes:
        bands: B x H x W uint16 [DN].
        label: H x W uint8 of {0, 1, 255}, or None.
        grid: where it lies.
    """

    bands: NDArray[np.uint16]
    label: NDArray[np.uint8] | None
    grid: Grid


def read_raster(path: Path, name: str, dtype: str, window: Window | None = None) -> tuple[NDArray[np.generic], Grid]:
    """Reads the single band of a GeoTIFF.

    Args:
        path: the file.
        name: what to call it in errors.
        dtype: the dtype that it must have; there is no silent cast.
        window: part to read, or None for all of it.

    Raises:
        ChipError: missing, truncated, not a raster, more than one band, or another dtype.
    """
    if not path.exists():
        raise ChipError(name, f"{path} is missing")
    try:
        with rasterio.open(path) as source:
            if source.count != 1:
                raise ChipError(name, f"{path} has {source.count} bands, expected 1")
            if source.dtypes[0] != dtype:
                raise ChipError(name, f"{path} is {source.dtypes[0]}, expected {dtype}")
            pixels = source.read(1, window=window)
            transform = source.window_transform(window) if window else source.transform
            grid = Grid(pixels.shape[0], pixels.shape[1], str(source.crs or ""), tuple(transform)[:6])
    except RasterioError as error:
        raise ChipError(name, f"{path} cannot be read ({error}): truncated or not a GeoTIFF") from None
    return pixels, grid


def image_size(path: Path, name: str) -> tuple[int, int]:
    """Height and width of a raster [pixels] without reading its pixels; raises `ChipError` as `read_raster`."""
    if not path.exists():
        raise ChipError(name, f"{path} is missing")
    try:
        with rasterio.open(path) as source:
            return source.height, source.width
    except RasterioError as error:
        raise ChipError(name, f"{path} cannot be read ({error}): truncated or not a GeoTIFF") from None


def check_label(label: NDArray[np.uint8], name: str = "label") -> None:
    """Refuses label values outside {0, 1, 255} with the histogram of values; nothing is cast to bool.

    Raises:
        ChipError: see above.
    """
    values = np.bincount(label.ravel(), minlength=256)
    found = {int(v): int(values[v]) for v in np.flatnonzero(values)}
    if set(found) - {0, 1, UNKNOWN}:
        shown = dict(sorted(found.items(), key=lambda item: -item[1])[:8])
        raise ChipError(
            name, f"values must be 0 (clear), 1 (cloud) or 255 (unknown), but it holds value: pixels {shown}"
        )


def read_chip(
    folder: Path, label: Path | None, bands: list[str], shape: tuple[int, int], window: Window | None = None
) -> Chip:
    """Reads a chip of the challenge's layout and checks that its files agree.

    Args:
        folder: holds one GeoTIFF per band, `B02.tif` and so on.
        label: its label, or None.
        bands: names of the bands, in order.
        shape: height and width that the chip must have [pixels].
        window: part of a larger image, or None.

    Raises:
        ChipError: a band is missing, truncated, of another dtype or shape; the label's values, shape, CRS or transform
            do not fit.
    """
    layers: list[NDArray[np.generic]] = []
    first: Grid | None = None
    for band in bands:
        pixels, grid = read_raster(folder / f"{band}.tif", band, "uint16", window)
        if (grid.height, grid.width) != shape:
            raise ChipError(band, f"is {grid.height} x {grid.width} pixels, expected {shape[0]} x {shape[1]}")
        if first is None:
            first = grid
        elif problem := grid.differences(first):
            raise ChipError(band, f"differs from {bands[0]}: {problem}")
        layers.append(pixels)
    assert first is not None
    mask = None
    if label is not None:
        pixels, grid = read_raster(label, "label", "uint8", window)
        if problem := grid.differences(first):
            raise ChipError("label", f"differs from the bands: {problem}")
        mask = pixels.astype(np.uint8, copy=False)
        check_label(mask)
    return Chip(np.stack(layers).astype(np.uint16, copy=False), mask, first)
