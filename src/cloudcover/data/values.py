"""The one place where the values that a raster stores become digital numbers (DN): reflectance x 10,000 as uint16.

A GeoTIFF can say three things of its pixels: a scale and an offset, a nodata value, and a mask. They are read here and
converted to the conventions of the store and of the models. A plain file is passed on as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from cloudcover.runtime.text import listed

DN_PER_REFLECTANCE = 10_000.0
"""Digital numbers per unit of reflectance in Sentinel-2 products."""
LARGEST = 65_535
"""Largest value of uint16."""
SMALLEST = -5_000
"""No reflectance is as dark [DN]: a smaller value marks pixels without data, though nothing says so."""
DTYPES = ("uint16", "int16", "float32", "float64")
"""Data types of rasters whose values `read_dn` can turn into DN."""
SHIFTED = (950, 2000)
"""Where all bands of a chip begin if 1000 DN were added to them (baseline 04.00), at least and below [DN]."""
DARKEST = 0.001
"""Share of a band's pixels that may be darker than its beginning: single dark pixels say nothing."""
NAMED = 10
"""Chips that a message names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """What a raster, or the metadata beside it, say of the values that a band stores.

    Attributes:
        scale: factor of a stored value; 1 if nothing is said.
        offset: what is added to the scaled value; 0 if nothing is said.
        nodata: stored value of pixels without data, or None if there is none that the file could hold.
        masked: whether the file has a mask of its own, internal or as a `.msk` beside it.
        reflectance: whether values with a scale of 1 are reflectance, as floating-point numbers are, and not DN.
    """

    scale: float
    offset: float
    nodata: float | None
    masked: bool = False
    reflectance: bool = False

    @classmethod
    def of(cls, source: DatasetReader, index: int = 1) -> Stored:
        """Read it from the tags of a band of an open raster."""
        dtype = np.dtype(source.dtypes[index - 1])
        return cls(
            scale=source.scales[index - 1],
            offset=source.offsets[index - 1],
            nodata=_held(source.nodatavals[index - 1], dtype),
            masked=MaskFlags.per_dataset in source.mask_flag_enums[index - 1],
            reflectance=dtype.kind == "f",
        )

    @property
    def scaled(self) -> bool:
        """Whether scale or offset say anything."""
        return (self.scale, self.offset) != (1, 0)

    def conversion(self, offset: int) -> str:
        """What `to_dn` is made of, in a word, such as `scale=0.0001,offset=-0.1` or `data.offset=1000`."""
        tags = [f"scale={self.scale:g}", f"offset={self.offset:g}"] if self.scaled else []
        return ",".join(tags if self.offset or not offset else [*tags, f"data.offset={offset}"])

    def to_dn(self, offset: int) -> tuple[float, float]:
        """Factor and summand that turn a stored value into DN.

        A scale other than 1 gives reflectance; integers with a scale of 1 are DN, and so is their offset.

        Args:
            offset: what was added to the DN of a file without an offset of its own [DN].

        Raises:
            ValueError: a scale or offset that is no number, or a scale that is not positive.
        """
        if not (math.isfinite(self.scale) and math.isfinite(self.offset) and self.scale > 0):
            raise ValueError(
                f"has the scale {self.scale:g} and the offset {self.offset:g}: expected a positive scale, "
                "such as 0.0001, and a finite offset, such as -0.1"
            )
        unit = 1.0 if self.scale == 1 and not self.reflectance else DN_PER_REFLECTANCE
        factor = unit * self.scale
        if math.isclose(factor, 1, rel_tol=1e-6):  # less than half a DN at the largest value
            factor = 1.0
        lost = offset if self.reflectance else offset * factor
        return factor, unit * self.offset if self.offset else -lost


def read_dn(
    source: DatasetReader,
    nodata: int,
    offset: int = 0,
    window: Window | None = None,
    index: int = 1,
    stated: Stored | None = None,
) -> tuple[NDArray[np.uint16], str]:
    """Read a band as DN.

    A file of uint16 without tags is returned as it is, without a pass over its pixels.

    Args:
        source: an open raster of one of `DTYPES`.
        nodata: value of pixels without data in the result [DN].
        offset: what was added to the DN of a file without an offset of its own; subtracted [DN].
        window: part to read, or None for all of it.
        index: number of the band, from 1.
        stated: what a product's metadata say of its values; None: the file's own tags count.

    Returns:
        H x W uint16 [DN] as of `as_dn`, and what was done to scale and shift the values, empty if nothing was.

    Raises:
        ValueError: scale and offset make no sense, or lead to values that uint16 cannot hold.
    """
    says = stated or Stored.of(source, index)
    moved = says.to_dn(offset) != (1, 0)
    pixels: NDArray[np.generic] = source.read(index, window=window)
    if pixels.dtype == np.uint16 and not moved and not says.masked and says.nodata in (None, nodata):
        return pixels.astype(np.uint16, copy=False), ""
    valid = source.read_masks(index, window=window) != 0 if says.masked else None
    dn = as_dn(pixels, says, nodata, offset, valid, saturate=stated is not None)
    return dn, says.conversion(offset) if moved else ""


def as_dn(
    pixels: NDArray[np.generic],
    says: Stored,
    nodata: int,
    offset: int = 0,
    valid: NDArray[np.bool_] | None = None,
    *,
    saturate: bool = False,
) -> NDArray[np.uint16]:
    """Turn stored values into DN.

    DN = 10,000 x (scale x stored + offset), rounded. A pixel has no data where `valid` or the nodata value says so, and
    where it is no finite number; if nothing is said, where it stores `nodata`. Pixels with data become at least 1 and
    never `nodata`.

    Args:
        pixels: any shape, of one of `DTYPES`.
        says: what they mean.
        nodata: value of pixels without data in the result [DN].
        offset: what was added to the DN if `says` states no offset; subtracted [DN].
        valid: pixels with data by a mask, in the same shape; None: there is no mask.
        saturate: whether values beyond uint16 become its largest; otherwise they are refused.

    Returns:
        uint16 [DN] in the same shape.

    Raises:
        ValueError: scale and offset make no sense, or lead to values that uint16 cannot hold or that are darker than
            any reflectance.
    """
    factor, shift = says.to_dn(offset)
    marker = says.nodata if says.nodata is not None or valid is not None else nodata
    empty = np.zeros(pixels.shape, bool) if marker is None else np.asarray(pixels == marker)
    if valid is not None:
        empty |= ~valid
    if pixels.dtype.kind == "f":
        empty |= ~np.isfinite(pixels)
        stored = np.where(empty, 0, pixels).astype(np.float64)
        dn = _converted(stored, factor, shift, nodata)
    else:  # by a table: two bytes have 65,536 values, an image many more pixels
        bits = pixels.view(np.uint16)
        dn = _converted(np.arange(LARGEST + 1, dtype=np.uint16).view(pixels.dtype), factor, shift, nodata)[bits]
    if not saturate:
        _refuse_extremes(pixels[~empty], factor, shift, says)
    dn[empty] = nodata
    return dn


def _held(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return a file's nodata value if its pixels can have it, as an integer if they are; otherwise None."""
    if nodata is None or dtype.kind == "f":
        return nodata
    limits = np.iinfo(dtype)
    return int(nodata) if limits.min <= nodata <= limits.max and float(nodata).is_integer() else None


def _converted(stored: NDArray[Any], factor: float, shift: float, nodata: int) -> NDArray[np.uint16]:
    """DN of stored values, between 1 and the largest and never `nodata`."""
    dn: NDArray[np.uint16] = np.rint(stored * factor + shift).clip(1, LARGEST).astype(np.uint16)
    dn[dn == nodata] = nodata + 1 if nodata < LARGEST else nodata - 1
    return dn


def _refuse_extremes(valid: NDArray[Any], factor: float, shift: float, says: Stored) -> None:
    """Refuse values with data that cannot be reflectance (`ValueError`)."""
    if not valid.size:
        return
    largest = round(float(valid.max()) * factor + shift)
    if largest > LARGEST:
        raise ValueError(
            f"has the scale {says.scale:g} and the offset {says.offset:g}, by which its largest value {valid.max()} "
            f"would be {largest} DN, but DN end at {LARGEST}: are they of reflectance?"
        )
    if valid.dtype.kind == "u":
        return
    smallest = round(float(valid.min()) * factor + shift)
    if smallest < SMALLEST:
        raise ValueError(
            f"has the scale {says.scale:g} and the offset {says.offset:g}, by which its smallest value {valid.min()} "
            f"would be {smallest} DN: if it marks pixels without data, say so with "
            f"`gdal_edit.py -a_nodata {valid.min()} FILE`"
        )


def copy_meaning(source: DatasetReader, part: DatasetWriter, window: Window) -> None:
    """Give a copied window the scale, offset and mask of its source; its nodata value is in the profile."""
    if (source.scales, source.offsets) != ((1,) * source.count, (0,) * source.count):
        part.scales, part.offsets = source.scales, source.offsets
    if MaskFlags.per_dataset in source.mask_flag_enums[0]:
        part.write_mask(source.read_masks(1, window=window))


def suspected_offset(bands: NDArray[np.uint16], nodata: int) -> bool:
    """Return whether all bands begin near 1000 DN, as those of a product of baseline 04.00 or later whose offset was lost.

    Args:
        bands: B x H x W uint16 [DN], neither scaled nor shifted.
        nodata: value of pixels without data [DN].
    """
    for pixels in bands:
        empty = np.count_nonzero(pixels == nodata)
        few = DARKEST * (pixels.size - empty)
        low, high = (np.count_nonzero(pixels < end) - (empty if nodata < end else 0) for end in SHIFTED)
        if low > few or high <= few:
            return False
    return True


def report(conversions: Mapping[str, str], suspects: Sequence[str]) -> None:
    """Log which chips were converted and by what, and warn of those whose offset seems to be lost.

    Args:
        conversions: how each chip was converted, by its name; empty where it was not.
        suspects: chips by `suspected_offset`.
    """
    by_kind: dict[str, list[str]] = {}
    for chip, how in conversions.items():
        if how:
            by_kind.setdefault(how, []).append(chip)
    for how, chips in by_kind.items():
        log.info("converted %s to DN by %s", _names(chips), how)
    if suspects:
        log.warning(
            "all bands of %s begin near 1000 DN: these look like Sentinel-2 products of processing baseline 04.00 or "
            "later, which add 1000 to every value. If they are, set data.offset: 1000 in params.yaml "
            "(`cloudcover predict --offset 1000`); else they are taken for cloudier than they are",
            _names(suspects),
        )


def _names(chips: Sequence[str]) -> str:
    return f"{len(chips)} chip{'s' if len(chips) > 1 else ''} ({listed(chips, NAMED)})"
