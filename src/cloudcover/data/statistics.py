"""Statistics of a chip's pixels, computed once on packing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2, 50, 98)


def exact_percentiles(values: NDArray[np.uint16], wanted: tuple[int, ...] = PERCENTILES) -> list[float]:
    """Compute percentiles with a histogram of 65,536 bins: exact for uint16, without sorting.

    The definition is numpy's default (linear interpolation between order statistics).

    Args:
        values: Digital numbers, any shape [DN].
        wanted: Percentiles in 0-100.

    Returns:
        One value per wanted percentile [DN]; NaN for no values.
    """
    if values.size == 0:
        return [float("nan")] * len(wanted)
    cumulative = np.cumsum(np.bincount(values.ravel(), minlength=1))
    position = np.asarray(wanted) / 100 * (values.size - 1)
    below = np.searchsorted(cumulative, np.floor(position), side="right")
    above = np.searchsorted(cumulative, np.ceil(position), side="right")
    return [float(v) for v in below + (position - np.floor(position)) * (above - below)]


def band_statistics(pixels: NDArray[np.uint16], band: str, nodata: int) -> dict[str, float]:
    """Compute mean, standard deviation and percentiles of one band [DN] without nodata; 0 for a band without data.

    Returns:
        The columns `mean_<band>_dn`, `std_<band>_dn`, `p02_<band>_dn`, `p50_<band>_dn`, `p98_<band>_dn`.
    """
    valid = pixels[pixels != nodata]
    if valid.size == 0:
        valid = np.zeros(1, np.uint16)
    columns = {f"mean_{band}_dn": float(valid.mean()), f"std_{band}_dn": float(valid.std())}
    for p, value in zip(PERCENTILES, exact_percentiles(valid), strict=True):
        columns[f"p{p:02d}_{band}_dn"] = value
    return columns


def flags(bands: NDArray[np.uint16], names: list[str], nodata: int) -> str:
    """Return quality flags of a chip, separated by spaces: `empty:<band>`, `constant:<band>`, `nodata`.

    `empty` means that a band has no data at all (a sparse file reads as zeros), `constant` that all its valid pixels
    are within 1 DN, `nodata` that some pixels of the chip have no data.
    """
    found = []
    for name, pixels in zip(names, bands, strict=True):
        valid = pixels[pixels != nodata]
        if valid.size == 0:
            found.append(f"empty:{name}")
        elif int(valid.max()) - int(valid.min()) <= 1:
            found.append(f"constant:{name}")
    if (bands == nodata).any():
        found.append("nodata")
    return " ".join(found)
