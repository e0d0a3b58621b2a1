"""Probabilities of cloud in a byte: a quarter of float32, and finer than any threshold needs.

Two codes: predictions have a value everywhere, and use all 256 levels; soft labels need one for pixels that do not
count, and with 254 steps 127 is exactly one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX

PREDICTION_STEPS = 255
SOFT_LABEL_STEPS = 254


def encode_predictions(probabilities: NDArray[np.floating]) -> NDArray[np.uint8]:
    """round(255 p) of probabilities p in [0, 1], any shape."""
    return np.asarray(np.rint(probabilities * PREDICTION_STEPS), np.uint8)


def decode_predictions(codes: NDArray[np.uint8 | np.floating]) -> NDArray[np.float32]:
    """Probabilities in [0, 1] of codes or of means of codes, any shape."""
    return np.asarray(codes / PREDICTION_STEPS, np.float32)


def encode_soft_labels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """round(254 p) of probabilities p in [0, 1], any shape; 255 is left for unknown."""
    return np.rint(probabilities * SOFT_LABEL_STEPS).astype(np.uint8)


def decode_soft_labels(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of cloud in [0, 1], and 255 for unknown: a soft target as losses take it (`losses.targets`)."""
    table = (np.arange(IGNORE_INDEX + 1) / SOFT_LABEL_STEPS).astype(np.float32)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]


def harden_soft_labels(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask: 1 at p > 0.5, else 0; 255 for unknown."""
    table = (np.arange(IGNORE_INDEX + 1) > SOFT_LABEL_STEPS // 2).astype(np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]
