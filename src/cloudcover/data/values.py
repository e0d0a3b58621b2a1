"""Conversion of stored raster values to digital numbers (DN), reflectance x 10,000 as uint16, for all readers.

A GeoTIFF can declare a scale and an offset, a nodata value, and a mask. They are read here and converted to the
conventions of the store and the models. The values of a plain file are unchanged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cloudcover.runtime.text import NAMED, listed

if TYPE_CHECKING:  # GDAL is loaded when a raster is opened: most stages read the store alone
    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.windows import Window

DN_PER_REFLECTANCE = 10_000.0
"""Digital numbers per unit of reflectance in Sentinel-2 products."""
LARGEST = 65_535
"""Largest value of uint16."""
SMALLEST = -5_000
"""Lower limit of plausible reflectance [DN]; smaller values mark pixels without data, even if undeclared."""
DTYPES = ("uint16", "int16", "float32", "float64")
"""Data types of rasters that `read_dn` can convert."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """The meaning of a band's stored values, declared by the raster or by metadata.

    Attributes:
        scale: Factor of a stored value; 1 if undeclared.
        offset: Number added to the scaled value; 0 if undeclared.
        nodata: Stored value of pixels without data; None if undeclared or not representable in the file.
        masked: Whether the file has its own mask, internal or as a `.msk` file.
        reflectance: Whether values with a scale of 1 are reflectance (floating point) and not DN.
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
            nodata=held(source.nodatavals[index - 1], dtype),
            masked=_has_mask(source, index),
            reflectance=dtype.kind == "f",
        )

    @property
    def scaled(self) -> bool:
        """Whether a scale or offset is declared."""
        return (self.scale, self.offset) != (1, 0)

    def conversion(self, offset: int) -> str:
        """Describe `to_dn` in one word, such as `scale=0.0001,offset=-0.1` or `data.offset=1000`."""
        tags = [f"scale={self.scale:g}", f"offset={self.offset:g}"] if self.scaled else []
        return ",".join(tags if self.offset or not offset else [*tags, f"data.offset={offset}"])

    def to_dn(self, offset: int) -> tuple[float, float]:
        """Return the factor and summand that convert a stored value to DN.

        A scale other than 1 yields reflectance; integers with a scale of 1 are DN, and so is their offset.

        Args:
            offset: Offset that was added to the DN of a file without an offset tag [DN].

        Raises:
            ValueError: The scale or offset is not a number, the scale is not positive, or one of them exceeds what
                reflectance can have.
        """
        unit = 1.0 if self.scale == 1 and not self.reflectance else DN_PER_REFLECTANCE
        factor = unit * self.scale
        # Ten times, because Landsat's offset is divided by the sine of the sun's elevation.
        if not (0 < factor <= LARGEST and abs(unit * self.offset) <= 10 * LARGEST):
            raise ValueError(
                f"has the scale {self.scale:g} and the offset {self.offset:g}: expected a positive scale, "
                "such as 0.0001, and an offset of reflectance, such as -0.1"
            )
        if math.isclose(factor, 1, rel_tol=1e-6):  # less than half a DN at the largest value
            factor = 1.0
        lost = offset if self.reflectance else offset * factor
        return factor, unit * self.offset if self.offset else -lost


def check_offset(offset: float) -> None:
    """Refuse an offset that is not a number of DN to subtract, such as a negative one of metadata (`ValueError`)."""
    if not (0 <= offset <= LARGEST and float(offset).is_integer()):
        raise ValueError(f"the offset is {offset}, expected the DN that were added to the values, such as 1000")


def read_dn(
    source: DatasetReader,
    nodata: int,
    offset: int = 0,
    window: Window | None = None,
    index: int = 1,
    stated: Stored | None = None,
    *,
    saturate: bool = False,
) -> tuple[NDArray[np.uint16], str]:
    """Read a band as DN.

    A uint16 file without tags is returned unchanged, without a pass over its pixels.

    Args:
        source: Open raster of one of `DTYPES`.
        nodata: Value of pixels without data in the result [DN].
        offset: Offset that was added to the DN of a file without an offset tag; it is subtracted [DN].
        window: Part to read; None: all.
        index: Number of the band, from 1.
        stated: Meaning of the values, if metadata add to the file's own tags; None: the tags apply.
        saturate: See `as_dn`.

    Returns:
        H x W uint16 [DN] as from `as_dn`, and a description of scaling and shifting, empty if there was none.

    Raises:
        ValueError: Scale and offset are meaningless, or lead to values that uint16 cannot represent.
    """
    says = stated or Stored.of(source, index)
    moved = says.to_dn(offset) != (1, 0)
    alpha = alpha_of(source)
    pixels: NDArray[np.generic] = source.read(index, window=window)
    if pixels.dtype == np.uint16 and not moved and not (says.masked or alpha) and says.nodata in (None, nodata):
        return pixels.astype(np.uint16, copy=False), ""
    valid = source.read_masks(index, window=window) != 0 if says.masked else None
    if alpha:  # it adds to what the file says otherwise: zeros without any declaration have no data as before
        says = says if says.masked or says.nodata is not None else replace(says, nodata=nodata)
        opaque = source.read(alpha, window=window) != 0
        valid = opaque if valid is None else valid & opaque
    dn = as_dn(pixels, says, nodata, offset, valid, saturate=saturate)
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
    """Convert stored values to DN.

    DN = 10,000 x (scale x stored + offset), rounded. A pixel has no data according to `valid` or the nodata value, or
    if it is not finite; if neither is declared, if its stored value is `nodata`. Pixels with data become at least 1 and
    never `nodata`.

    Args:
        pixels: Stored values, any shape, of one of `DTYPES`.
        says: Meaning of the values.
        nodata: Value of pixels without data in the result [DN].
        offset: Offset that was added to the DN if `says` declares none; it is subtracted [DN].
        valid: Mask of pixels with data, in the same shape; None: there is no mask.
        saturate: Whether values beyond uint16 are clipped to its maximum; otherwise they are refused.

    Returns:
        uint16 [DN] in the same shape.

    Raises:
        ValueError: Scale and offset are meaningless, or lead to values that uint16 cannot represent or that are too
            dark for reflectance.
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
    else:  # with a lookup table: two bytes have 65,536 values, an image has many more pixels
        bits = pixels.view(np.uint16)
        dn = _converted(np.arange(LARGEST + 1, dtype=np.uint16).view(pixels.dtype), factor, shift, nodata)[bits]
    if not saturate:
        _refuse_extremes(pixels[~empty], factor, shift, says)
    dn[empty] = nodata
    return dn


def held(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Return a file's nodata value if its pixels can represent it, as an integer for integer types; otherwise None."""
    if nodata is None or dtype.kind == "f":
        return nodata
    limits = np.iinfo(dtype)
    return int(nodata) if limits.min <= nodata <= limits.max and float(nodata).is_integer() else None


def _converted(stored: NDArray[Any], factor: float, shift: float, nodata: int) -> NDArray[np.uint16]:
    """Convert stored values to DN between 1 and the maximum, and never `nodata`."""
    dn: NDArray[np.uint16] = np.rint(stored * factor + shift).clip(1, LARGEST).astype(np.uint16)
    dn[dn == nodata] = nodata + 1 if nodata < LARGEST else nodata - 1
    return dn


def _refuse_extremes(valid: NDArray[Any], factor: float, shift: float, says: Stored) -> None:
    """Refuse values with data that cannot be reflectance (`ValueError`)."""
    if not valid.size:
        return
    largest = round(float(valid.max()) * factor + shift)
    if largest > LARGEST:
        remedy = "are these values of reflectance?"
        if says.reflectance and not says.scaled:
            remedy = (
                "floating-point numbers are taken as reflectance; if these are DN, give the scale 0.0001, or write it "
                "into the file: `gdal_edit.py -scale 0.0001 FILE`"
            )
        raise ValueError(
            f"has the scale {says.scale:g} and the offset {says.offset:g}, by which its largest value {valid.max()} "
            f"would be {largest} DN, but DN cannot exceed {LARGEST}: {remedy}"
        )
    if valid.dtype.kind == "u":
        return
    smallest = round(float(valid.min()) * factor + shift)
    if smallest < SMALLEST:
        raise ValueError(
            f"has the scale {says.scale:g} and the offset {says.offset:g}, by which its smallest value {valid.min()} "
            f"would be {smallest} DN: if it marks pixels without data, mask them in an array, or declare it in a "
            f"file: `gdal_edit.py -a_nodata {valid.min()} FILE`"
        )


def _has_mask(source: DatasetReader, index: int) -> bool:
    """Return whether a band's file has a mask that says which pixels are known."""
    from rasterio.enums import MaskFlags

    return MaskFlags.per_dataset in source.mask_flag_enums[index - 1]


def alpha_of(source: DatasetReader) -> int:
    """Return the number of the alpha band, which is 0 where the other bands have no data; 0 if there is none.

    GDAL itself uses it as a mask only of one or three bands.
    """
    from rasterio.enums import ColorInterp

    colours = source.colorinterp if source.count > 1 else ()
    return colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else 0


def copy_meaning(source: DatasetReader, part: DatasetWriter, window: Window) -> None:
    """Copy scale, offset and mask of the source to a copied window; its nodata value is in the profile."""
    if (source.scales, source.offsets) != ((1,) * source.count, (0,) * source.count):
        part.scales, part.offsets = source.scales, source.offsets
    if _has_mask(source, 1):
        part.write_mask(source.read_masks(1, window=window))


def report_conversions(conversions: Mapping[str, str]) -> None:
    """Log which chips were converted and how.

    Args:
        conversions: Conversion of each chip, by its name; empty if there was none.
    """
    by_kind: dict[str, list[str]] = {}
    for chip, how in conversions.items():
        if how:
            by_kind.setdefault(how, []).append(chip)
    for how, chips in by_kind.items():
        log.info("converted %s to DN by %s", counted(chips), how)


def counted(chips: Sequence[str]) -> str:
    """Return the number of chips and the names of the first ones."""
    return f"{len(chips)} chip{'s' if len(chips) > 1 else ''} ({listed(chips, NAMED)})"
