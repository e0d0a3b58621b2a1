"""Images in memory: numpy arrays, and arrays with the same interface, such as xarray's that dask computes in blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid
from cloudcover.data.values import Stored, as_dn

BAND_AXES = ("band", "bands", "channel", "wavelength")
"""Common names of the band axis in xarray."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class ArrayImage:
    """An array as an image (`image.Image`); only requested parts are computed.

    Args:
        array: B x H x W as in `dn_of`; in an xarray array the bands may be last, if their axis has one of the names in
            `BAND_AXES`.
        scale: See `dn_of`.
        offset: See `dn_of`.
        nodata: See `dn_of`.
        name: Stem of the mask's file name.

    Raises:
        ValueError: The array does not have three axes, or is not numeric.
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
        """Read a window, see `image.Image`; raise `ValueError` for values that cannot be reflectance."""
        part = self._array[:, rows, columns]
        return dn_of(part, self._scale, self._offset, self._nodata)


def dn_of(array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0) -> NDArray[np.uint16]:
    """Convert an array of DN or reflectance to DN.

    Args:
        array: Array of any shape. Integers are DN, floating-point numbers are reflectance. Masked (`numpy.ma`),
            non-finite and `nodata` pixels have no data.
        scale: Reflectance of a stored value of 1; None: 1 for floating-point numbers, 0.0001 for integers.
        offset: Offset that was added to the DN; it is subtracted [DN].
        nodata: Value of pixels without data in the result, and in an integer array [DN].

    Returns:
        uint16 array of the same shape [DN]; `nodata` where there are no data.

    Raises:
        ValueError: The array is not numeric, or contains values that cannot be reflectance.
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
    """Move the band axis of an array to the front, without computing the array.

    Raises:
        ValueError: There are not three axes.
    """
    if len(array.shape) != 3:
        raise ValueError(f"the array has the shape {tuple(array.shape)}, expected bands x height x width")
    dims = getattr(array, "dims", None)
    values = array.data if dims is not None else array  # the numpy or dask array inside an xarray array
    axis = next((i for i, name in enumerate(dims or ()) if str(name).lower() in BAND_AXES), 0)
    return values.transpose(axis, *(i for i in range(3) if i != axis)) if axis else values


def _stored(dtype: Any, scale: float | None) -> Stored:
    """Return the meaning of an array's values; raise `ValueError` if they are not numbers."""
    kind = np.dtype(dtype).kind
    if kind not in "uif":
        raise ValueError(f"the array is {dtype}, expected DN as integers or reflectance as floating-point numbers")
    return Stored(1.0 if scale is None else scale, 0.0, None, reflectance=kind == "f")


def _two_bytes(values: NDArray[Any]) -> NDArray[np.generic]:
    """Convert integers of another size to two bytes; raise `ValueError` if they do not fit."""
    if not values.size:
        return values.astype(np.uint16)
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint16, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise ValueError(f"the array holds values from {low} to {high}, expected DN of {np.iinfo(np.uint16).max} at most")
