"""Images in memory: numpy arrays, and what is read like one, such as xarray's that dask computes block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid
from cloudcover.data.values import Stored, as_dn

BAND_AXES = ("band", "bands", "channel", "wavelength")
"""Names that xarray's users give to the axis of the bands."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class ArrayImage:
    """An array as an image (`image.Image`); only what is asked for is computed.

    Args:
        array: B x H x W of DN as integers, or of reflectance as floating-point numbers; an array of xarray may have its
            bands last, if its axis of bands has one of the names in `BAND_AXES`.
        scale: reflectance of a stored value of 1; None: 1 for floating-point numbers, 0.0001 for integers.
        offset: what was added to the DN; subtracted [DN].
        nodata: value of pixels without data in the result, and in an array of integers [DN].
        name: stem of the mask's file name.

    Raises:
        ValueError: the array has no three axes, or no numbers.
    """

    def __init__(
        self, array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0, name: str = "array"
    ) -> None:
        self._array = bands_first(array)
        kind = np.dtype(self._array.dtype).kind
        if kind not in "uif":
            raise ValueError(f"the array is {self._array.dtype}, expected DN as integers or reflectance as floats")
        self.name = name
        _, height, width = self._array.shape
        self.grid = Grid(height, width, "", IDENTITY)
        self.files: tuple[Path, ...] = ()
        self._stored = Stored(1.0 if scale is None else scale, 0.0, None, reflectance=kind == "f")
        self._nodata, self._offset = nodata, offset
        self.conversion = self._stored.conversion(offset) if self._stored.to_dn(offset) != (1, 0) else ""
        self.doubtful = not self.conversion
        self.says = f"array of {self._array.dtype}: {f'DN by {self.conversion}' if self.conversion else 'taken as DN'}"

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """See `image.Image`; raises `ValueError` for values that cannot be reflectance."""
        part = np.asarray(self._array[:, rows, columns])
        if part.dtype.kind in "ui" and part.dtype.itemsize != 2:
            part = _two_bytes(part)
        return as_dn(part, self._stored, self._nodata, self._offset)


def dn_of(array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0) -> NDArray[np.uint16]:
    """The whole of an array as B x H x W uint16 [DN], `nodata` where it is not finite; arguments as of `ArrayImage`."""
    return ArrayImage(array, scale, offset, nodata).read(slice(None), slice(None))


def bands_first(array: Any) -> Any:
    """An array with its axis of bands moved to the front, without computing it.

    Raises:
        ValueError: there are not three axes.
    """
    if len(array.shape) != 3:
        raise ValueError(f"the array has the shape {tuple(array.shape)}, expected bands x height x width")
    dims = getattr(array, "dims", None)
    values = array.data if dims is not None else array  # of xarray: numpy's or dask's own
    axis = next((i for i, name in enumerate(dims or ()) if str(name).lower() in BAND_AXES), 0)
    return values.transpose(axis, *(i for i in range(3) if i != axis)) if axis else values


def _two_bytes(values: NDArray[Any]) -> NDArray[np.generic]:
    """Integers of another size in two bytes; raises `ValueError` for those that do not fit."""
    if not values.size:
        return values.astype(np.uint16)
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint16, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise ValueError(f"the array holds values from {low} to {high}, expected DN of {np.iinfo(np.uint16).max} at most")
