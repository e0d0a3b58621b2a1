"""Images in memory: numpy arrays, and arrays with the same interface, such as xarray's that dask computes in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.grid import Grid
from cloudcover.data.values import Stored, as_dn, check_offset, held
from cloudcover.rasters.layers import described_as

BAND_AXES = ("band", "bands", "channel", "wavelength", "variable")
"""Common names of the band axis in xarray; the last is that of a dataset turned into an array."""
NODATA = ("_FillValue", "nodata")
"""Attributes of an xarray array with the value of pixels without data."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class ArrayImage:
    """An array as an image (`image.Image`); only requested parts are computed.

    Of an xarray array, the attributes `scale_factor`, `add_offset`, `_FillValue` and `nodata` count, as files that are
    opened without decoding have them. Its bands may be last if their axis has one of the names in `BAND_AXES`, and are
    selected by the coordinates of that axis, or else by the attribute `long_name`, if these are names of bands.

    Args:
        array: B x H x W as in `dn_of`.
        scale: See `dn_of`; None: that of the attributes.
        offset: See `dn_of`; ignored if the attributes declare one.
        nodata: See `dn_of`.
        name: Stem of the mask's file name.
        bands: Names of the requested bands, such as `B02`; None: all in their order.

    Raises:
        ValueError: The array does not have three axes, has no pixels, is not numeric, lacks a band or has others than
            the requested ones without names, or has attributes without meaning; or the offset is not one.
    """

    def __init__(
        self,
        array: Any,
        scale: float | None = None,
        offset: int = 0,
        nodata: int = 0,
        name: str = "array",
        bands: Sequence[str] | None = None,
    ) -> None:
        check_offset(offset)
        array = plain(array)
        self._array, names = bands_first(array)
        self._order = next((order for own in names if (order := _order(own, bands or ()))), [])
        if bands and not self._order:
            _check_count(array.shape, len(self._array), bands)
        self._stored = _declared(getattr(array, "attrs", {}), _stored(self._array.dtype, scale), self._array.dtype)
        self._offset, self._nodata = offset, nodata
        _, height, width = self._array.shape
        self.name = name
        self.grid = Grid(height, width, "", IDENTITY)
        self.files: tuple[Path, ...] = ()
        moved = self._stored.to_dn(offset) != (1, 0)
        self.conversion = self._stored.conversion(offset) if moved else ""
        self.doubtful = not moved
        self.says = f"array of {self._array.dtype}: {f'DN by {self.conversion}' if self.conversion else 'taken as DN'}"

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint16]:
        """Read a window, see `image.Image`; raise `ValueError` for values that cannot be reflectance."""
        part = self._array[:, rows, columns]
        return _dn(part[self._order] if self._order else part, self._stored, self._offset, self._nodata)


def dn_of(array: Any, scale: float | None = None, offset: int = 0, nodata: int = 0) -> NDArray[np.uint16]:
    """Convert an array of DN or reflectance to DN.

    Args:
        array: Array of any shape. Integers of at least two bytes are DN, floating-point numbers are reflectance. Masked
            (`numpy.ma`), non-finite and `nodata` pixels have no data.
        scale: Reflectance of a stored value of 1; None: 1 for floating-point numbers, 0.0001 for integers.
        offset: Offset that was added to the DN; it is subtracted [DN].
        nodata: Value of pixels without data in the result, and in an integer array [DN].

    Returns:
        uint16 array of the same shape [DN]; `nodata` where there are no data.

    Raises:
        ValueError: The array is not numeric, or contains values that cannot be reflectance.
    """
    values = np.asanyarray(array)
    return _dn(values, _stored(values.dtype, scale), offset, nodata)


def plain(array: Any) -> Any:
    """Convert lists, tensors and so on to a numpy array; return numpy, xarray and dask arrays as they are."""
    if isinstance(getattr(array, "dtype", None), np.dtype):
        return array
    if isinstance(array, (list, tuple)) and any(isinstance(part, np.ma.MaskedArray) for part in array):
        return np.ma.stack(array)  # `asarray` would drop the masks
    return np.asarray(array)


def several(array: Any) -> list[Any] | None:
    """Return the images of an array with four axes; None if there is another number of axes.

    Raises:
        ValueError: There is no image, or the axes' names say that the first one is that of the bands.
    """
    if len(array.shape) != 4:
        return None
    dims = [str(name) for name in getattr(array, "dims", ())]
    if dims and dims[0].lower() in BAND_AXES:
        raise ValueError(f"the array has the axes {', '.join(dims)}, expected images x bands x height x width")
    if not len(array):
        raise ValueError("the array contains no image")
    return list(array)


def _dn(array: Any, stored: Stored, offset: int, nodata: int) -> NDArray[np.uint16]:
    values = np.asanyarray(array)
    valid = None
    if isinstance(values, np.ma.MaskedArray):
        valid = ~np.ma.getmaskarray(values) & (values.data != nodata)
        values = values.data
    if values.dtype.kind != "f" and values.dtype.itemsize != 2:
        values = _two_bytes(values)
    return as_dn(np.asarray(values), stored, nodata, offset, valid)


def bands_first(array: Any) -> tuple[Any, list[list[str]]]:
    """Move the band axis of an array to the front, without computing the array.

    Returns:
        The array, and lists that may name its bands: the coordinates of the axis, and `long_name` as rioxarray sets it.

    Raises:
        ValueError: There are not three axes, or there are no pixels.
    """
    if len(array.shape) != 3 or 0 in array.shape:
        raise ValueError(f"the array has the shape {tuple(array.shape)}, expected bands x height x width")
    dims = getattr(array, "dims", None)
    if dims is None:
        return array, []
    axis = next((i for i, name in enumerate(dims) if str(name).lower() in BAND_AXES), 0)
    values = array.data  # the numpy or dask array inside an xarray array
    values = values.transpose(axis, *(i for i in range(3) if i != axis)) if axis else values
    names = getattr(array, "coords", {}).get(dims[axis])
    described = getattr(array, "attrs", {}).get("long_name")
    lists = [() if names is None else names.values, described if isinstance(described, (list, tuple)) else ()]
    return values, [[str(name) for name in each] for each in lists if len(each) == len(values)]


def _order(names: Sequence[str], bands: Sequence[str]) -> list[int]:
    """Return the positions of the requested bands among an array's names; empty if no requested band is named.

    Raises:
        ValueError: Some of them are named, but not each of them once.
    """
    found = {band: described_as(band, names) for band in bands}
    if not any(found.values()):
        return []
    if missing := [band for band, places in found.items() if len(places) != 1]:
        raise ValueError(f"the array has the bands {', '.join(names)}, expected {missing[0]} once")
    return [place for (place,) in found.values()]


def _check_count(shape: Sequence[int], count: int, bands: Sequence[str]) -> None:
    """Refuse another number of bands than the requested ones (`ValueError`)."""
    if count == len(bands):
        return
    last = "; its bands seem to be last: `array.transpose(2, 0, 1)` moves them" if shape[-1] == len(bands) else ""
    raise ValueError(
        f"the array of the shape {tuple(shape)} has {count} bands, expected {list(bands)} x height x width{last}"
    )


def _stored(dtype: Any, scale: float | None) -> Stored:
    """Return the meaning of an array's values; raise `ValueError` if they are not numbers, or have a single byte."""
    kind = np.dtype(dtype).kind
    if kind not in "uif" or np.dtype(dtype).itemsize == 1:
        raise ValueError(
            f"the array is {dtype}, expected DN as integers of two bytes or more, or reflectance as floating-point "
            "numbers"
        )
    return Stored(1.0 if scale is None else scale, 0.0, None, reflectance=kind == "f")


def _declared(attributes: Mapping[str, Any], stored: Stored, dtype: np.dtype[Any]) -> Stored:
    """Add what the attributes of an xarray array declare; raise `ValueError` if it is not a number."""

    def of(*keys: str) -> float | None:
        key = next((key for key in keys if key in attributes), None)
        if key is None:
            return None
        try:
            return float(attributes[key])
        except (TypeError, ValueError):
            raise ValueError(f"the array's attribute {key} is {attributes[key]!r}, expected a number") from None

    scale, offset = of("scale_factor"), of("add_offset")
    return replace(
        stored,
        scale=stored.scale if scale is None or stored.scale != 1 else scale,
        offset=offset or 0.0,
        nodata=held(of(*NODATA), dtype),
    )


def _two_bytes(values: NDArray[Any]) -> NDArray[np.generic]:
    """Convert integers of another size to two bytes; raise `ValueError` if they do not fit."""
    if not values.size:
        return values.astype(np.uint16)
    low, high = int(values.min()), int(values.max())
    for dtype in (np.uint16, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    raise ValueError(f"the array holds values from {low} to {high}, expected DN of {np.iinfo(np.uint16).max} at most")
