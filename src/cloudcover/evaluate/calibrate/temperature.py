"""Calibration of probabilities: reliability diagram and expected calibration error.

All results come from a histogram of pixels by label and level (probabilities are stored as bytes), without another pass
over pixels.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.masks.overlap import Floats
from cloudcover.masks.temperature import levels

BINS = 15
"""Number of bins of equal width in the reliability diagram, as in Guo et al. 2017."""


def reliability_sums(histogram: NDArray[np.int64], temperature: float = 1.0, bins: int = BINS) -> Floats:
    """Sum pixels by bin of probability: … x bins x 3 (pixels, probability, cloud).

    Args:
        histogram: … x 2 (clear, cloud) x 256.
        temperature: Temperature to apply.
        bins: Number of bins of equal width over [0, 1].
    """
    probability = levels(temperature).astype(np.float64)
    of_level = np.minimum((probability * bins).astype(int), bins - 1)
    member = np.equal.outer(of_level, np.arange(bins)).astype(np.float64)
    pixels = histogram.sum(axis=-2)
    return np.stack([pixels @ member, (pixels * probability) @ member, histogram[..., 1, :] @ member], axis=-1)


def calibration_error(sums: Floats) -> Floats:
    """Compute the expected calibration error (Naeini et al. 2015) [0-1].

    It is the mean gap between probability and share of cloud, weighted by pixels.

    Args:
        sums: … x bins x 3, from `reliability_sums`.
    """
    pixels, probability, cloud = np.moveaxis(sums, -1, 0)
    return np.asarray(np.abs(probability - cloud).sum(axis=-1) / np.maximum(pixels.sum(axis=-1), 1))


def reliability(sums: Floats) -> pd.DataFrame:
    """Compute the reliability diagram (DeGroot and Fienberg 1983).

    Args:
        sums: Bins x 3, from `reliability_sums`.

    Returns:
        One row per bin that has pixels: `low` and `high` (edges of probability), `pixels`, `probability` (mean) and
        `cloud_share`.
    """
    edges = np.linspace(0, 1, len(sums) + 1)
    pixels = sums[:, 0]
    some = np.maximum(pixels, 1)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "pixels": pixels.astype(np.int64),
            "probability": sums[:, 1] / some,
            "cloud_share": sums[:, 2] / some,
        }
    )
    return table[table["pixels"] > 0].reset_index(drop=True)
