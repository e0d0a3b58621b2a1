"""Bins for the share of cloud in labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NO_LABEL = -1


BANDS = {"clear": (0.0, 0.05), "partly": (0.05, 0.95), "full": (0.95, 1.01)}
"""Bands of cloud cover: lower bound (included), upper bound (excluded). The outer two say little about cloud edges."""


def band_of(coverage_share: float) -> str:
    """Return the band of a cover in 0-1: `clear`, `partly` or `full`."""
    return next(name for name, (low, high) in BANDS.items() if low <= coverage_share < high)


def coverage_bin(coverage_share: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Assign covers to bins of equal width over 0-1; the last one includes 1. NaN gives `NO_LABEL`.

    Args:
        coverage_share: Covers, any shape, 0-1 or NaN.
        number: Number of bins.

    Returns:
        Bin numbers from 0, in the shape of the input.
    """
    bins = np.minimum(np.nan_to_num(coverage_share) * number, number - 1).astype(np.int64)
    return np.where(np.isnan(coverage_share), NO_LABEL, bins)
