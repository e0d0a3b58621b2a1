"""Cloud probabilities encoded in a byte: a quarter of the size of float32, and finer than any threshold needs.

There are two codes. Predictions have a value everywhere, and use all 256 levels. Soft labels need a level for unknown
pixels; with 254 steps, 127 is exactly one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX

PREDICTION_STEPS = 255
SOFT_LABEL_STEPS = 254


def encode_predictions(probabilities: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Encode probabilities p in [0, 1] of any shape as round(255 p)."""
    return np.asarray(np.rint(probabilities * PREDICTION_STEPS), np.uint8)


def decode_predictions(codes: NDArray[np.uint8 | np.floating]) -> NDArray[np.float32]:
    """Decode codes, or means of codes, of any shape to probabilities in [0, 1]."""
    return np.asarray(codes / PREDICTION_STEPS, np.float32)


def encode_soft_labels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode probabilities p in [0, 1] of any shape as round(254 p); 255 is reserved for unknown."""
    return np.rint(probabilities * SOFT_LABEL_STEPS).astype(np.uint8)


def decode_soft_labels(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Decode to cloud probabilities in [0, 1], with 255 for unknown: a soft target for `losses.targets`."""
    table = (np.arange(IGNORE_INDEX + 1) / SOFT_LABEL_STEPS).astype(np.float32)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]


def harden_soft_labels(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert codes to a mask: 1 at p > 0.5, else 0; 255 for unknown."""
    table = (np.arange(IGNORE_INDEX + 1) > SOFT_LABEL_STEPS // 2).astype(np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]
