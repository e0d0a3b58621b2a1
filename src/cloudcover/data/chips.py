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

from cloudcover.data.grid import Grid
from cloudcover.data.values import Stored, read_dn

IGNORE_INDEX = 255
"""Value of label pixels that nobody knows: left out of loss, metric, coverage and audit."""
UNDECLARED, DECLARED = "undeclared-255", "declared-255"
"""Flags of chips whose label may be a 0/255 mask, see `doubt_of`."""
LARGEST_MASK = 1 << 28
"""Pixels of a mask that are read at most; a whole Sentinel-2 scene has less than half of it."""


class ChipError(ValueError):
    """A chip cannot be used; `band` names the file that is to blame (`label` for the label)."""

    def __init__(self, band: str, reason: str) -> None:
        super().__init__(f"{band}: {reason}")
        self.band = band
        self.reason = reason


@dataclass(frozen=True)
class Chip:
    """A chip in memory.

    Attributes:
        bands: B x H x W uint16 [DN].
        label: H x W uint8 of {0, 1, 255}, 255 also where any band has no data; or None.
        grid: where it lies.
        conversion: how the files' values were scaled and shifted to become DN, empty if they were not.
        doubt: `UNDECLARED` or `DECLARED` if the label may be a 0/255 mask, else empty.
    """

    bands: NDArray[np.uint16]
    label: NDArray[np.uint8] | None
    grid: Grid
    conversion: str = ""
    doubt: str = ""


def stem_of(name: str) -> str | None:
    """Name of a TIFF without its suffix, `.tif` or `.tiff` in any case; None for hidden files and all others."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in ("tif", "tiff") and not name.startswith(".") else None


def images(folder: Path) -> dict[str, Path]:
    """Find the TIFFs of a folder by their names without suffix; links are followed, hidden files are left out.

    Raises:
        ChipError: two files differ only in the suffix, such as `B02.tif` and `B02.TIF`.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (stem := stem_of(path.name)) is None:
            continue
        if stem in found:
            raise ChipError(stem, f"{found[stem]} and {path.name} have one name: remove one of them")
        found[stem] = path
    return found


def band_file(folder: Path, band: str) -> Path:
    """Return the TIFF of a band by either suffix in any case, or its expected name where there is none; raises as `images`."""
    return images(folder).get(band, folder / f"{band}.tif")


def instead(path: Path) -> str:
    """What stands in the place of a missing TIFF and how to make it one, as the end of a message; or an empty text."""
    if path.is_symlink():
        return f": it is a broken link to {path.readlink()}"
    key = path.stem.lower()
    near = sorted(p.name for p in path.parent.iterdir() if key in p.name.lower()) if path.parent.is_dir() else []
    near = [name for name in near if not name.startswith(".") and not name.endswith((".aux.xml", ".msk", ".ovr"))]
    if not near:
        return ""
    mend = "rename it" if stem_of(near[0]) else "`gdal_translate` converts it"
    return f", but {near[0]} is there: expected a GeoTIFF called {path.name} ({mend})"


@contextmanager
def open_tiff(path: Path, name: str) -> Iterator[DatasetReader]:
    """Open a GeoTIFF, and no other format: a VRT that is called `.tif` could name any file or address.

    Args:
        path: the file.
        name: what to call it in errors.

    Raises:
        ChipError: it is missing, or GDAL or the system cannot read it, here or while it is open.
    """
    try:
        if not path.exists():
            raise ChipError(name, f"{path} is missing{instead(path)}")
        with rasterio.open(path, driver="GTiff") as source:
            yield source
    except RasterioError as error:
        raise ChipError(name, f"{path} cannot be read ({error}): truncated or not a GeoTIFF") from None
    except OSError as error:
        raise ChipError(name, f"{path} cannot be read: {error.strerror or error}") from None


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


def _grid(source: DatasetReader, window: Window | None) -> Grid:
    """Place of what is to be read, before it is."""
    height, width = (int(window.height), int(window.width)) if window else source.shape
    transform = source.window_transform(window) if window else source.transform
    return Grid(height, width, str(source.crs or ""), tuple(transform)[:6])


def read_grid(path: Path, name: str) -> Grid:
    """Read where a raster is, without its pixels; raises `ChipError` as `read_band`."""
    with open_tiff(path, name) as source:
        check_gcps(source, path, name)
        return _grid(source, None)


def read_band(
    path: Path,
    name: str,
    nodata: int,
    offset: int,
    window: Window | None = None,
    shape: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint16], Grid, str]:
    """Read the single band of a GeoTIFF as DN.

    Args:
        path: the file, uint16; there is no silent cast.
        name: what to call it in errors.
        nodata: value of pixels without data in the result [DN].
        offset: what was added to the DN of a file without an offset of its own [DN].
        window: part to read, or None for all of it.
        shape: height and width that it must have [pixels]; None: any.

    Returns:
        Pixels, place, and conversion as of `values.read_dn`.

    Raises:
        ChipError: missing, truncated, not a GeoTIFF, more than one band, another dtype or shape, a place by ground
            control points, or a scale and an offset that make no sense.
    """
    with open_tiff(path, name) as source:
        _check(source, path, name, "uint16")
        grid = _grid(source, window)
        if shape and (grid.height, grid.width) != shape:  # before its pixels fill the memory
            raise ChipError(name, f"is {grid.height} x {grid.width} pixels, expected {shape[0]} x {shape[1]}")
        try:
            pixels, conversion = read_dn(source, nodata, offset, window)
        except ValueError as error:
            raise ChipError(name, f"{path} {error}") from None
        return pixels, grid, conversion


def read_mask(
    path: Path, name: str, window: Window | None = None, like: Grid | None = None
) -> tuple[NDArray[np.uint8], Grid]:
    """Read a label or a predicted mask and check its values; pixels outside the file's own mask become 255.

    Args:
        path: the file, uint8; there is no silent cast.
        name: what to call it in errors.
        window: part to read, or None for all of it.
        like: where it must be; None: anywhere.

    Raises:
        ChipError: missing, truncated, not a GeoTIFF, more than one band, another dtype or place, a place by ground
            control points, a scale or offset, pixels of a nodata value other than 255, values outside {0, 1, 255}, or
            more than `LARGEST_MASK` pixels.
    """
    with open_tiff(path, name) as source:
        _check(source, path, name, "uint8")
        grid = _grid(source, window)
        if like and (problem := grid.differences(like)):  # before its pixels fill the memory
            raise ChipError(name, f"differs from the bands: {problem}")
        if grid.height * grid.width > LARGEST_MASK:
            raise ChipError(name, f"{path} is {grid.height} x {grid.width} pixels, more than {LARGEST_MASK:,}")
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
        return mask, grid


def doubt_of(path: Path) -> str:
    """How much a mask that holds 255 but no 1 looks like a 0/255 mask.

    Returns:
        `UNDECLARED`: its file does not say that 255 is unknown. `DECLARED`: it is the file's nodata value, which is
        often copied from another file. Empty: the file has a mask that says which pixels are known.
    """
    with open_tiff(path, "label") as source:
        says = Stored.of(source)
        if says.masked:
            return ""
        return DECLARED if says.nodata == IGNORE_INDEX else UNDECLARED


def image_size(path: Path, name: str) -> tuple[int, int]:
    """Height and width of a raster [pixels] without reading its pixels; raises `ChipError` as `read_band`."""
    grid = read_grid(path, name)
    return grid.height, grid.width


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
        ChipError: a band cannot be read (`read_band`) or its shape, CRS or transform do not fit; or the same of the
            label (`read_mask`).
    """
    files = images(folder)
    layers: list[NDArray[np.uint16]] = []
    conversions: list[str] = []
    first: Grid | None = None
    for band in bands:
        path = files.get(band, folder / f"{band}.tif")
        pixels, grid, conversion = read_band(path, band, nodata, offset, window, shape)
        first = first or grid
        if problem := grid.differences(first):
            raise ChipError(band, f"differs from {bands[0]}: {problem}")
        layers.append(pixels)
        conversions.append(conversion)
    assert first is not None
    pixels = np.stack(layers)
    mask, doubt = None, ""
    if label is not None:
        mask = read_mask(label, "label", window, like=first)[0]
        empty = (pixels == nodata).any(axis=0)
        if 1 not in mask and IGNORE_INDEX in mask[~empty]:
            doubt = doubt_of(label)
        mask[empty] = IGNORE_INDEX  # nobody knows what is where nothing was seen
    return Chip(pixels, mask, first, "|".join(dict.fromkeys(filter(None, conversions))), doubt)
