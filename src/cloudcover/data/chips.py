"""Reading and checking a single chip on disk: its bands and its label."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid
from cloudcover.data.values import DTYPES, Stored, read_dn

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

IGNORE_INDEX = 255
"""Value of unknown label pixels, ignored by loss, metric, coverage and audit."""
UNDECLARED, DECLARED = "undeclared-255", "declared-255"
"""Flags of chips whose label may be a 0/255 mask, see `doubt_of`."""
LARGEST_MASK = 1 << 28
"""Maximum number of pixels of a mask, more than twice that of a whole Sentinel-2 scene."""


class ChipError(ValueError):
    """A chip that cannot be used; `band` names the file to blame (`label` for the label)."""

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
        grid: Georeferencing of the chip.
        conversion: How the files' values were scaled and shifted to DN; empty if they were not.
        doubt: `UNDECLARED` or `DECLARED` if the label may be a 0/255 mask, otherwise empty.
    """

    bands: NDArray[np.uint16]
    label: NDArray[np.uint8] | None
    grid: Grid
    conversion: str = ""
    doubt: str = ""


def stem_of(name: str) -> str | None:
    """Return the name of a TIFF without `.tif` or `.tiff` in any case; None for hidden files and all others."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in ("tif", "tiff") and not name.startswith(".") else None


def images(folder: Path) -> dict[str, Path]:
    """Find the TIFFs in a folder by their names without suffix; links are followed, hidden files are ignored.

    Raises:
        ChipError: Two files differ only in the suffix, such as `B02.tif` and `B02.TIF`; or the folder cannot be listed.
    """
    found: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ChipError(folder.name, f"{folder} cannot be listed: {error.strerror}; change its permissions") from None
    for path in paths:
        if (stem := stem_of(path.name)) is None:
            continue
        if stem in found:
            raise ChipError(stem, f"{found[stem]} and {path.name} have the same name: remove one of them")
        found[stem] = path
    return found


def band_file(folder: Path, band: str) -> Path:
    """Return the TIFF of a band, with either suffix in any case, or else its expected name; raises as `images`."""
    return images(folder).get(band, folder / f"{band}.tif")


def instead(path: Path) -> str:
    """Explain, as the end of a message, what is in place of a missing TIFF and how to convert it; may be empty."""
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
    """Open a GeoTIFF and no other format, because a VRT named `.tif` could refer to any file or address.

    Args:
        path: Path of the file.
        name: Name of the file in errors.

    Raises:
        ChipError: It is missing, or GDAL or the system cannot read it, on opening or while it is open.
    """
    import rasterio
    from rasterio.errors import RasterioError

    try:
        if not path.exists():
            raise ChipError(name, f"{path} is missing{instead(path)}")
        if not path.is_file():  # reading a named pipe would wait for ever
            raise ChipError(name, f"{path} is not a file")
        with rasterio.open(path, driver="GTiff") as source:
            yield source
    except UnicodeEncodeError:
        raise ChipError(name, f"{path} has a name that is not valid text, so GDAL cannot open it: rename it") from None
    except RasterioError as error:
        raise ChipError(name, f"{path} cannot be read ({error}): truncated or not a GeoTIFF") from None
    except OSError as error:
        raise ChipError(name, f"{path} cannot be read: {error.strerror or error}") from None


def _check(source: DatasetReader, path: Path, name: str, dtype: str) -> None:
    """Refuse an open raster unless it has a single band of `dtype` and an affine transform.

    Raises:
        ChipError: There is more than one band, another dtype, or georeferencing by ground control points.
    """
    if source.count != 1:
        raise ChipError(name, f"{path} has {source.count} bands, expected 1")
    if source.dtypes[0] != dtype:
        raise ChipError(name, f"{path} is {source.dtypes[0]}, expected {dtype}: {remedy_of(source.dtypes[0], dtype)}")
    check_gcps(source, path, name)


def remedy_of(dtype: str, expected: str = "uint16") -> str:
    """Explain, as the end of a message, what to do with a file of another data type than that of bands or labels."""
    if expected == "uint8":
        return "write 0 for clear, 1 for cloud and 255 for unknown as uint8"
    hint = "; for a mask alone, `cloudcover predict --as bands` reads it as it is" if dtype in DTYPES else ""
    return f"write DN as uint16, that is reflectance x 10,000 and 0 for no data{hint}"


def check_gcps(source: DatasetReader, path: Path, name: str) -> None:
    """Refuse an open raster placed by control points or an RPC model, which the mask would lose (`ChipError`)."""
    if not source.transform.is_identity:
        return
    points = len(source.gcps[0])
    if points or source.rpcs:
        how, option = (f"{points} ground control points", "") if points else ("an RPC model", "-rpc ")
        raise ChipError(
            name,
            f"{path} is georeferenced by {how}, expected an affine transform: "
            f"resample it with `gdalwarp {option}IN OUT`",
        )


def _grid(source: DatasetReader, window: Window | None) -> Grid:
    """Return the georeferencing of a part before it is read."""
    height, width = (int(window.height), int(window.width)) if window else source.shape
    transform = source.window_transform(window) if window else source.transform
    return Grid(height, width, str(source.crs or ""), tuple(transform)[:6])


def read_grid(path: Path, name: str) -> Grid:
    """Read the georeferencing of a raster without its pixels; raises `ChipError` as `read_band`."""
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
        path: Path of the file, uint16; there is no silent cast.
        name: Name of the file in errors.
        nodata: Value of pixels without data in the result [DN].
        offset: Offset that was added to the DN of a file without an offset tag [DN].
        window: Part to read; None: all.
        shape: Required height and width [pixels]; None: any.

    Returns:
        Pixels, georeferencing, and conversion as in `values.read_dn`.

    Raises:
        ChipError: The file is missing, truncated, not a GeoTIFF, has more than one band, another dtype or shape, ground
            control points, or a meaningless scale and offset.
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
        path: Path of the file, uint8; there is no silent cast.
        name: Name of the file in errors.
        window: Part to read; None: all.
        like: Required georeferencing; None: any.

    Raises:
        ChipError: The file is missing, truncated, not a GeoTIFF, has more than one band, another dtype or place, ground
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
                f"{path} declares nodata {says.nodata}, expected {IGNORE_INDEX} (unknown) or none, and {count} pixels "
                f"hold {says.nodata}: if they are clear (0) or cloud (1), remove the tag with "
                "`gdal_edit.py -unsetnodata FILE`; if their class is unknown, write them as 255",
            )
        if says.masked:
            mask[source.read_masks(1, window=window) == 0] = IGNORE_INDEX
        _check_values(mask, path, name)
        return mask, grid


def doubt_of(path: Path) -> str:
    """Judge how much a mask that contains 255 but no 1 looks like a 0/255 mask.

    Returns:
        `UNDECLARED`: the file does not declare 255 as unknown. `DECLARED`: 255 is the file's nodata value, which is
        often copied from another file. Empty: the file has a mask of known pixels.
    """
    with open_tiff(path, "label") as source:
        says = Stored.of(source)
        if says.masked:
            return ""
        return DECLARED if says.nodata == IGNORE_INDEX else UNDECLARED


def image_size(path: Path, name: str) -> tuple[int, int]:
    """Read height and width of a raster [pixels] without its pixels; raises `ChipError` as `read_band`."""
    grid = read_grid(path, name)
    return grid.height, grid.width


def _check_values(mask: NDArray[np.uint8], path: Path, name: str) -> None:
    """Refuse mask values outside {0, 1, 255}, with their histogram (`ChipError`); nothing is cast to bool."""
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
    """Read a chip of the challenge's layout and check that its files match.

    Args:
        folder: Folder with one GeoTIFF per band, `B02.tif` and so on.
        label: Label of the chip, or None.
        bands: Names of the bands, in order.
        shape: Required height and width of the chip [pixels].
        window: Part of a larger image, or None.
        nodata: Value of pixels without data in the chip [DN]; the files may use other values.
        offset: Offset that was added to the DN of files without an offset tag [DN].

    Raises:
        ChipError: A band cannot be read (`read_band`), or its shape, CRS or transform do not match; or the same applies
            to the label (`read_mask`).
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
        mask[empty] = IGNORE_INDEX  # pixels without data are unknown
    return Chip(pixels, mask, first, "|".join(dict.fromkeys(filter(None, conversions))), doubt)
