"""One chip on disk: reading and checking its bands and its label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from cloudcover.data.values import Stored, read_dn

IGNORE_INDEX = 255
"""Value of label pixels that nobody knows: left out of loss, metric, coverage and audit."""


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
        conversion: how the files' values were scaled and shifted to become DN, empty if they were not.
    """

    bands: NDArray[np.uint16]
    label: NDArray[np.uint8] | None
    grid: Grid
    conversion: str = ""


@contextmanager
def _opened(path: Path, name: str) -> Iterator[DatasetReader]:
    """Open a raster; what GDAL cannot read becomes a `ChipError`."""
    if not path.exists():
        raise ChipError(name, f"{path} is missing")
    try:
        with rasterio.open(path) as source:
            yield source
    except RasterioError as error:
        raise ChipError(name, f"{path} cannot be read ({error}): truncated or not a GeoTIFF") from None


def _check(source: DatasetReader, path: Path, name: str, dtype: str) -> None:
    """Refuse an open raster that is not one band of `dtype` whose place is an affine transform.

    Raises:
        ChipError: more than one band, another dtype, or a place by ground control points.
    """
    if source.count != 1:
        raise ChipError(name, f"{path} has {source.count} bands, expected 1")
    if source.dtypes[0] != dtype:
        raise ChipError(name, f"{path} is {source.dtypes[0]}, expected {dtype}")
    check_gcps(source, path, name)


def check_gcps(source: DatasetReader, path: Path, name: str) -> None:
    """Refuse an open raster whose place is given by ground control points, which the mask would lose (`ChipError`)."""
    if source.transform.is_identity and (points := len(source.gcps[0])):
        raise ChipError(
            name,
            f"{path} is placed by {points} ground control points, expected an affine transform: "
            "resample it with `gdalwarp IN OUT`",
        )


def _grid(source: DatasetReader, shape: tuple[int, ...], window: Window | None) -> Grid:
    transform = source.window_transform(window) if window else source.transform
    return Grid(shape[0], shape[1], str(source.crs or ""), tuple(transform)[:6])


def read_band(
    path: Path, name: str, nodata: int, offset: int, window: Window | None = None
) -> tuple[NDArray[np.uint16], Grid, str]:
    """Read the single band of a GeoTIFF as DN.

    Args:
        path: the file, uint16; there is no silent cast.
        name: what to call it in errors.
        nodata: value of pixels without data in the result [DN].
        offset: what was added to the DN of a file without an offset of its own [DN].
        window: part to read, or None for all of it.

    Returns:
        Pixels, place, and conversion as of `values.read_dn`.

    Raises:
        ChipError: missing, truncated, not a raster, more than one band, another dtype, a place by ground control
            points, or a scale and an offset that make no sense.
    """
    with _opened(path, name) as source:
        _check(source, path, name, "uint16")
        try:
            pixels, conversion = read_dn(source, nodata, offset, window)
        except ValueError as error:
            raise ChipError(name, f"{path} {error}") from None
        return pixels, _grid(source, pixels.shape, window), conversion


def read_mask(path: Path, name: str, window: Window | None = None) -> tuple[NDArray[np.uint8], Grid]:
    """Read a label or a predicted mask and check its values; pixels outside the file's own mask become 255.

    Args:
        path: the file, uint8; there is no silent cast.
        name: what to call it in errors.
        window: part to read, or None for all of it.

    Raises:
        ChipError: missing, truncated, not a raster, more than one band, another dtype, a place by ground control
            points, a scale or offset, pixels of a nodata value other than 255, or values outside {0, 1, 255}.
    """
    with _opened(path, name) as source:
        _check(source, path, name, "uint8")
        says = Stored.of(source)
        if says.scaled:
            raise ChipError(
                name,
                f"{path} has the scale {says.scale:g} and the offset {says.offset:g}, expected 1 and 0: "
                "write it without them",
            )
        mask = source.read(1, window=window)
        if says.nodata not in (None, IGNORE_INDEX) and (count := np.count_nonzero(mask == says.nodata)):
            raise ChipError(
                name,
                f"{path} says nodata {says.nodata}, expected {IGNORE_INDEX} (unknown) or none, and {count} pixels hold "
                f"{says.nodata}: if they are clear (0) or cloud (1), remove the tag with "
                "`gdal_edit.py -unsetnodata FILE`; if nobody knows them, write them as 255",
            )
        if says.masked:
            mask[source.read_masks(1, window=window) == 0] = IGNORE_INDEX
        _check_values(mask, path, name)
        return mask, _grid(source, mask.shape, window)


def image_size(path: Path, name: str) -> tuple[int, int]:
    """Height and width of a raster [pixels] without reading its pixels; raises `ChipError` as `read_band`."""
    with _opened(path, name) as source:
        return source.height, source.width


def _check_values(mask: NDArray[np.uint8], path: Path, name: str) -> None:
    """Refuse mask values outside {0, 1, 255} with the histogram of values (`ChipError`); nothing is cast to bool."""
    values = np.bincount(mask.ravel(), minlength=256)
    found = {int(v): int(values[v]) for v in np.flatnonzero(values)}
    if set(found) - {0, 1, IGNORE_INDEX}:
        shown = dict(sorted(found.items(), key=lambda item: -item[1])[:8])
        raise ChipError(
            name, f"{path}: values must be 0 (clear), 1 (cloud) or 255 (unknown), but it holds value: pixels {shown}"
        )


def read_chip(
    folder: Path,
    label: Path | None,
    bands: list[str],
    shape: tuple[int, int],
    window: Window | None = None,
    *,
    nodata: int = 0,
    offset: int = 0,
) -> Chip:
    """Read a chip of the challenge's layout and check that its files agree.

    Args:
        folder: holds one GeoTIFF per band, `B02.tif` and so on.
        label: its label, or None.
        bands: names of the bands, in order.
        shape: height and width that the chip must have [pixels].
        window: part of a larger image, or None.
        nodata: value of pixels without data in the chip; the files may have their own [DN].
        offset: what was added to the DN of files without an offset of their own [DN].

    Raises:
        ChipError: a band cannot be read (`read_band`) or has another shape; the label cannot be read (`read_mask`), or
            its shape, CRS or transform do not fit.
    """
    layers: list[NDArray[np.uint16]] = []
    conversions: list[str] = []
    first: Grid | None = None
    for band in bands:
        pixels, grid, conversion = read_band(folder / f"{band}.tif", band, nodata, offset, window)
        if (grid.height, grid.width) != shape:
            raise ChipError(band, f"is {grid.height} x {grid.width} pixels, expected {shape[0]} x {shape[1]}")
        if first is None:
            first = grid
        elif problem := grid.differences(first):
            raise ChipError(band, f"differs from {bands[0]}: {problem}")
        layers.append(pixels)
        conversions.append(conversion)
    assert first is not None
    mask = None
    if label is not None:
        mask, grid = read_mask(label, "label", window)
        if problem := grid.differences(first):
            raise ChipError("label", f"differs from the bands: {problem}")
    return Chip(np.stack(layers), mask, first, "|".join(dict.fromkeys(filter(None, conversions))))
