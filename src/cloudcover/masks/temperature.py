"""Temperature scaling, which calibrates probabilities.

All results come from a histogram of pixels by label and level, because probabilities are stored as bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.codec import PREDICTION_STEPS, decode_predictions
from cloudcover.masks.decision import LEAST, apply_temperature
from cloudcover.masks.overlap import Floats

RANGE = 0.1, 10.0
"""Bounds of the search for the temperature."""


def levels(temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the calibrated probability of each level of a byte: 256 float32."""
    return apply_temperature(decode_predictions(np.arange(PREDICTION_STEPS + 1, dtype=np.float32)), temperature)


def log_loss(histogram: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """Sum the log loss of pixels [nats].

    Args:
        histogram: … x 2 (clear, cloud) x 256.
        temperature: Temperature to apply.

    Returns:
        One sum for each of the leading dimensions.
    """
    cloud = np.clip(levels(temperature).astype(np.float64), LEAST, 1 - LEAST)
    return np.asarray(-(histogram * np.log([1 - cloud, cloud])).sum(axis=(-2, -1)))


def fit_temperature(histogram: NDArray[np.int64]) -> float:
    """Fit the temperature with the lowest log loss (Guo et al. 2017); 1 if the histogram (2 x 256) is empty."""
    if not histogram.any():
        return 1.0

    from scipy.optimize import minimize_scalar  # half a second that other users of this module need not spend

    def loss(log_temperature: float) -> float:
        return float(log_loss(histogram, np.exp(log_temperature)) / histogram.sum())

    low, high = np.log(RANGE)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x))


def histogram(levels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count known pixels by label and level: 2 (clear, cloud) x 256.

    Args:
        levels: Levels round(p x 255), any shape.
        labels: Labels of {0, 1, 255}, the same shape.
    """
    known = labels != IGNORE_INDEX
    steps = PREDICTION_STEPS + 1
    codes = levels[known] + steps * labels[known].astype(np.int64)
    return np.bincount(codes, minlength=2 * steps).reshape(2, steps)
