"""The one place where the values that a raster stores become digital numbers (DN): reflectance x 10,000 as uint16.

A GeoTIFF can say three things of its pixels: a scale and an offset, a nodata value, and a mask. They are read here and
converted to the conventions of the store and of the models. A plain file is passed on as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
SHIFTED = (950, 2000)
"""Where all bands of a chip begin if 1000 DN were added to them (baseline 04.00), at least and below [DN]."""
DARKEST = 0.001
"""Share of a band's pixels that may be darker than its beginning: single dark pixels say nothing."""
NAMED = 10
"""Chips that a message names."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """What a single-band raster says of the values that it stores.

    Attributes:
        scale: factor of a stored value; 1 if the file says nothing.
        offset: what is added to the scaled value; 0 if the file says nothing.
        nodata: stored value of pixels without data, or None if there is none that the file could hold.
        masked: whether the file has a mask of its own, internal or as a `.msk` beside it.
    """

    scale: float
    offset: float
    nodata: int | None
    masked: bool

    @classmethod
    def of(cls, source: DatasetReader) -> Stored:
        """Read it from the tags of an open raster of integers."""
        percentiles = np.iinfo(source.dtypes[0])
        nodata = source.nodata
        held = nodata is not None and percentiles.min <= nodata <= percentiles.max and float(nodata).is_integer()
        return cls(
            scale=source.scales[0],
            offset=source.offsets[0],
            nodata=int(nodata) if held else None,
            masked=MaskFlags.per_dataset in source.mask_flag_enums[0],
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

        A scale other than 1 gives reflectance; with a scale of 1 the values are DN, and so is the offset.

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
        unit = 1.0 if self.scale == 1 else DN_PER_REFLECTANCE
        factor = unit * self.scale
        if math.isclose(factor, 1, rel_tol=1e-6):  # less than half a DN at the largest value
            factor = 1.0
        return factor, unit * self.offset if self.offset else -offset * factor


def read_dn(
    source: DatasetReader, nodata: int, offset: int = 0, window: Window | None = None
) -> tuple[NDArray[np.uint16], str]:
    """Read a band as DN.

    DN = 10,000 x (scale x stored + offset), rounded. A pixel has no data where the file's mask or nodata value says so;
    if the file has neither, where it stores `nodata`. Pixels with data become at least 1 and never `nodata`. A file
    without tags is returned as it is, without a pass over its pixels.

    Args:
        source: an open raster whose first band is uint16.
        nodata: value of pixels without data in the result [DN].
        offset: what was added to the DN of a file without an offset of its own; subtracted [DN].
        window: part to read, or None for all of it.

    Returns:
        H x W uint16 [DN], and what was done to scale and shift the values, empty if nothing was.

    Raises:
        ValueError: scale and offset make no sense, or lead to values that uint16 cannot hold.
    """
    says = Stored.of(source)
    factor, shift = says.to_dn(offset)
    pixels: NDArray[np.uint16] = source.read(1, window=window)
    moved = (factor, shift) != (1, 0)
    if not moved and not says.masked and says.nodata in (None, nodata):
        return pixels, ""
    marker = says.nodata if says.nodata is not None or says.masked else nodata
    empty = np.zeros(pixels.shape, bool) if marker is None else pixels == marker
    if says.masked:
        empty |= source.read_masks(1, window=window) == 0
    converted: NDArray[np.uint16] = _table(pixels[~empty], factor, shift, nodata, says)[pixels]
    converted[empty] = nodata
    return converted, says.conversion(offset) if moved else ""


def _table(valid: NDArray[np.uint16], factor: float, shift: float, nodata: int, says: Stored) -> NDArray[np.uint16]:
    """DN of each of the 65,536 values that a file can store; `valid` are those with data."""
    exact: NDArray[np.float64] = np.rint(np.arange(LARGEST + 1) * factor + shift)
    if valid.size and exact[valid.max()] > LARGEST:
        raise ValueError(
            f"has the scale {says.scale:g} and the offset {says.offset:g}, by which its largest value {valid.max()} "
            f"would be {exact[valid.max()]:.0f} DN, but DN end at {LARGEST}: are they of reflectance?"
        )
    table: NDArray[np.uint16] = exact.clip(1, LARGEST).astype(np.uint16)
    table[table == nodata] = nodata + 1 if nodata < LARGEST else nodata - 1
    return table


def copy_meaning(source: DatasetReader, part: DatasetWriter, window: Window) -> None:
    """Give a copied window the scale, offset and mask of its source; its nodata value is in the profile."""
    if (source.scales, source.offsets) != ((1,) * source.count, (0,) * source.count):
        part.scales, part.offsets = source.scales, source.offsets
    if MaskFlags.per_dataset in source.mask_flag_enums[0]:
        part.write_mask(source.read_masks(1, window=window))


def suspected_offset(bands: NDArray[np.uint16], nodata: int) -> bool:
    """Whether all bands begin near 1000 DN, as those of a product of baseline 04.00 or later whose offset was lost.

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
