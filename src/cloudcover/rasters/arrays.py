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
        array: B x H x W as of `dn_of`; an array of xarray may have its bands last, if its axis of bands has one of the
            names in `BAND_AXES`.
        scale: see `dn_of`.
        offset: see `dn_of`.
        nodata: see `dn_of`.
        name: stem of the mask's file name.

    Raises:
        ValueError: the array has no three axes, or no numbers.
    """

    def __init__(
        self, array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0, name: str = "array"
    ) -> None:
        self._array = bands_first(array)
        self._scale, self._offset, self._nodata = scale, offset, nodata
        stored = _stored(self._array.dtype, scale)
        _, height, width = self._array.shape
        self.name = name
        self.grid = Grid(height, width, "", IDENTITY)
        self.files: tuple[Path, ...] = ()
        self.conversion = stored.conversion(offset) if stored.to_dn(offset) != (1, 0) else ""
        self.doubtful = not offset
        self.says = f"array of {self._array.dtype}: {f'DN by {self.conversion}' if self.conversion else 'taken as DN'}"

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """See `image.Image`; raises `ValueError` for values that cannot be reflectance."""
        part = self._array[:, rows, columns]
        return dn_of(part, self._scale, self._offset, self._nodata)


def dn_of(array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0) -> NDArray[np.uint16]:
    """Turn an array of DN or reflectance into DN.

    Args:
        array: any shape; integers are DN, floating-point numbers are reflectance. What is masked (`numpy.ma`) or not
            finite has no data; so has what is `nodata`.
        scale: reflectance of a stored value of 1; None: 1 for floating-point numbers, 0.0001 for integers.
        offset: what was added to the DN; subtracted [DN].
        nodata: value of pixels without data in the result, and in an array of integers [DN].

    Returns:
        The same shape, uint16 [DN]; `nodata` where there are no data.

    Raises:
        ValueError: the array holds no numbers, or values that cannot be reflectance.
    """
    values = np.asanyarray(array)
    valid = None
    if isinstance(values, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(values) & (values.data != nodata)
        values = values.data
    stored = _stored(values.dtype, scale)
    if values.dtype.kind != "f" and values.dtype.itemsize != 2:
        values = _two_bytes(values)
    return as_dn(np.asarray(values), stored, nodata, offset, valid)


def bands_first(array: Any) -> Any:
    """Return an array with its axis of bands moved to the front, without computing it.

    Raises:
        ValueError: there are not three axes.
    """
    if len(array.shape) != 3:
        raise ValueError(f"the array has the shape {tuple(array.shape)}, expected bands x height x width")
    dims = getattr(array, "dims", None)
    values = array.data if dims is not None else array  # of xarray: numpy's or dask's own
    axis = next((i for i, name in enumerate(dims or ()) if str(name).lower() in BAND_AXES), 0)
    return values.transpose(axis, *(i for i in range(3) if i != axis)) if axis else values


def _stored(dtype: Any, scale: float | None) -> Stored:
    """What the values of an array mean; raises `ValueError` if they are no numbers."""
    kind = np.dtype(dtype).kind
    if kind not in "uif":
        raise ValueError(f"the array is {dtype}, expected DN as integers or reflectance as floating-point numbers")
    return Stored(1.0 if scale is None else scale, 0.0, None, reflectance=kind == "f")


def _two_bytes(values: NDArray[Any]) -> NDArray[np.generic]:
    """Integers of another size in two bytes; raises `ValueError` for those that do not fit."""
    if not values.size:
        return values.astype(np.uint16)
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint16, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise ValueError(f"the array holds values from {low} to {high}, expected DN of {np.iinfo(np.uint16).max} at most")
