"""An image of bands in files, opened once, checked for consistency, and read window by window.

The image has the grid of its smallest pixels. Bands of larger pixels that cover the same area are resampled to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Interleaving, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from cloudcover.data.chips import LARGEST_MASK, ChipError, check_gcps, remedy_of
from cloudcover.data.grid import Grid
from cloudcover.data.values import Stored, alpha_of, held, read_dn
from cloudcover.rasters.layers import GTIFF, JPEG2000, VRT, Layer, Plan, Request

GDAL = {"GDAL_NUM_THREADS": "1"}
"""With several threads, JPEG 2000 errors are lost: pixels of a truncated file would be garbage."""
REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}
"""Options for remote files: no requests for sidecar files, and a timeout for silent servers."""
FORMATS = {GTIFF: "GeoTIFF", JPEG2000: "JPEG 2000", VRT: "VRT"}
"""Readable names of GDAL drivers."""


class Stack:
    """Bands in files on one grid, created by `open_stack`."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        request: Request,
        sources: dict[str, DatasetReader],
        says: Sequence[Stored],
        resampled: str,
    ) -> None:
        self.name = name
        self.files = tuple(dict.fromkeys(layer.path.resolve() for layer in plan.layers if layer.path))
        self.grid = grid_of(sources[plan.layers[0].uri])
        self._request = request
        self._layers = plan.layers
        self._says = tuple(says)
        self._sources = sources
        self._locks = {uri: Lock() for uri in sources}
        moved = [
            stored.conversion(_offset(layer, request))
            for layer, stored in zip(plan.layers, says, strict=True)
            if stored.to_dn(_offset(layer, request)) != (1, 0)
        ]
        self.conversion = "|".join(dict.fromkeys(moved))
        self.doubtful = plan.doubtful and not moved
        values = f"DN by {self.conversion}" if self.conversion else "values taken as DN"
        self.says = "; ".join([f"{plan.says}: {values}", *([resampled] if resampled else [])])

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """Read a window, see `image.Image`."""
        window = Window.from_slices(rows, columns)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        pixels = np.empty((len(self._layers), height, width), np.uint16)
        with rasterio.Env(**options(self._layers)):
            for layer, stored, band in zip(self._layers, self._says, pixels, strict=True):
                with self._locks[layer.uri], errors_of(layer):  # GDAL files may be used by one thread at a time
                    band[:] = self._read(layer, stored, window)
        return pixels

    def _read(self, layer: Layer, stored: Stored, window: Window) -> NDArray[np.uint16]:
        try:
            dn, _ = read_dn(
                self._sources[layer.uri],
                self._request.nodata,
                _offset(layer, self._request),
                window,
                layer.index or 1,
                stored,
                saturate=layer.says is not None,
            )
        except ValueError as error:
            raise ChipError(layer.band, f"{layer.shown} {error}") from None
        return dn


@contextmanager
def open_stack(name: str, plan: Plan, request: Request) -> Iterator[Stack]:
    """Open the files of an image.

    Args:
        name: Name of the image.
        plan: Places of its bands.
        request: Requested bands and conversions.

    Raises:
        ChipError: A file is missing or unreadable, has several bands where it must not, has another data type, another
            place than the one of the smallest pixels, more than `LARGEST_MASK` pixels, or a meaningless scale and
            offset.
    """
    sources: dict[str, DatasetReader] = {}
    says: list[Stored] = []
    with ExitStack() as stack:
        with rasterio.Env(**options(plan.layers)):
            for layer in plan.layers:
                with errors_of(layer):
                    if layer.uri not in sources:
                        sources[layer.uri] = stack.enter_context(open_layer(layer))
                    source = sources[layer.uri]
                    says.append(_check(source, layer, request))
            resampled = _align(plan.layers, sources, says, request, stack)
        yield Stack(name, plan, request, sources, says, resampled)


def _align(
    layers: Sequence[Layer],
    sources: dict[str, DatasetReader],
    says: Sequence[Stored],
    request: Request,
    stack: ExitStack,
) -> str:
    """Resample bands of larger pixels to the grid of the smallest ones, in `sources`; describe the changes in words.

    Raises:
        ChipError: A band has another place than that of the smallest pixels, or needs resampling but has a mask.
    """
    grids = [grid_of(sources[layer.uri]) for layer in layers]
    finest = min(range(len(layers)), key=lambda index: grids[index].pixel)
    aim, done = grids[finest], []
    for layer, grid, stored in zip(layers, grids, says, strict=True):
        if not (problem := grid.differences(aim)):
            continue
        if not grid.same_area(aim):
            raise ChipError(layer.band, f"{layer.shown} differs from {layers[finest].band}: {problem}")
        if stored.masked:
            raise ChipError(
                layer.band,
                f"{layer.shown} has its own mask and pixels of {grid.pixel:g}, not {aim.pixel:g}: "
                f"resample it to the size of {layers[finest].band}, or write its mask as a nodata value",
            )
        done.append(f"{layer.band} resampled from {grid.pixel:g} to {aim.pixel:g}")
        if grid_of(sources[layer.uri]) != aim:  # a raster with several bands is resampled once
            sources[layer.uri] = stack.enter_context(_resampled(sources[layer.uri], aim, stored, request))
    return ", ".join(done)


def _resampled(source: DatasetReader, aim: Grid, stored: Stored, request: Request) -> WarpedVRT:
    """Return a bilinear view of a raster on another grid; pixels without data do not spread."""
    nodata = request.nodata if stored.nodata is None else stored.nodata
    return WarpedVRT(
        source,
        crs=source.crs,
        transform=Affine(*aim.transform),
        width=aim.width,
        height=aim.height,
        resampling=Resampling.bilinear,
        src_nodata=nodata,
        nodata=nodata,
    )


def options(layers: Sequence[Layer]) -> dict[str, str]:
    """Return GDAL's settings for reading some files."""
    return GDAL | (REMOTE if any(layer.path is None for layer in layers) else {})


def open_layer(layer: Layer) -> DatasetReader:
    """Open the file of a layer with only its driver; raise as rasterio, or `ChipError` if it is missing."""
    if layer.path is not None and not layer.path.exists():
        raise ChipError(layer.band, f"{layer.path} is missing")
    return rasterio.open(layer.uri, driver=layer.driver)


@contextmanager
def errors_of(layer: Layer) -> Iterator[None]:
    """Turn the errors of GDAL and of the system into a `ChipError` that names band and file."""
    try:
        yield
    except RasterioError as error:
        reason = str(error.__cause__ or error).replace(layer.uri, layer.shown)
        cause = f"{'' if layer.path else 'out of reach, '}truncated or not a {FORMATS[layer.driver]}"
        raise ChipError(layer.band, f"{layer.shown} cannot be read ({reason}): {cause}") from None
    except OSError as error:
        raise ChipError(layer.band, f"{layer.shown} cannot be read: {error.strerror or error}") from None


def grid_of(source: DatasetReader) -> Grid:
    """Return size and place of an open raster."""
    return Grid(source.height, source.width, str(source.crs or ""), tuple(source.transform)[:6])


def _check(source: DatasetReader, layer: Layer, request: Request) -> Stored:
    """Refuse a file that cannot be the layer (`ChipError`); return the declared meaning of its values."""

    def refuse(reason: str) -> ChipError:
        return ChipError(layer.band, f"{layer.shown} {reason}")

    if layer.index is None and source.count != 1:
        raise refuse(f"has {source.count} bands, expected 1")
    index = layer.index or 1
    if index == alpha_of(source):
        raise refuse(f"has alpha (transparency) as band {index}, which is no reflectance: choose another band")
    if (dtype := source.dtypes[index - 1]) not in layer.dtypes:
        raise refuse(f"is {dtype}, expected {' or '.join(layer.dtypes)}: {remedy_of(dtype)}")
    if source.height * source.width > LARGEST_MASK:
        raise refuse(f"is {source.height} x {source.width} pixels, more than {LARGEST_MASK:,}: cut it into parts")
    together = source.count if source.interleaving is Interleaving.pixel else 1
    if math.prod(source.block_shapes[index - 1]) * together > LARGEST_MASK:
        raise refuse(f"is stored in blocks of more than {LARGEST_MASK:,} values: write it in tiles")
    check_gcps(source, layer.path or Path(layer.shown), layer.band)
    says = _meaning(source, layer, index, request)
    if layer.scaled and not says.scaled:
        raise refuse("declares neither scale nor offset, and there is no metadata file beside it")
    try:
        says.to_dn(_offset(layer, request))
    except ValueError as error:
        raise refuse(str(error)) from None
    return says


def _meaning(source: DatasetReader, layer: Layer, index: int, request: Request) -> Stored:
    """Return the meaning of a layer's values: metadata precede tags, tags the request; masks are the file's own."""
    own = Stored.of(source, index)
    tags = own if own.scaled or request.scale is None else replace(own, scale=request.scale)
    says = layer.says or tags
    if own.reflectance and layer.floats:
        says = layer.floats if layer.floats.scaled else tags
    declared = (held(layer.nodata, np.dtype(source.dtypes[index - 1])), says.nodata, own.nodata)
    nodata = next((value for value in declared if value is not None), None)
    return replace(says, nodata=nodata, masked=own.masked, reflectance=own.reflectance)


def _offset(layer: Layer, request: Request) -> int:
    """Return the offset to subtract from a layer's values if its file declares none [DN]."""
    return 0 if layer.says else request.offset or 0
