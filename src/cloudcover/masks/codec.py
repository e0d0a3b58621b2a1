"""Soft labels in a byte: the probability of cloud p as round(254 p), and 255 where nobody knows.

A quarter of float32, and 127 is exactly one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX

LEVELS = 254


def encode(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """round(254 p) of probabilities p in [0, 1], any shape."""
    return np.rint(probabilities * LEVELS).astype(np.uint8)


def decode(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of cloud in [0, 1], and 255 for unknown: a soft target as losses take it (`losses.targets`)."""
    table = (np.arange(IGNORE_INDEX + 1) / LEVELS).astype(np.float32)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]


def harden(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask: 1 at p > 0.5, else 0; 255 for unknown."""
    table = (np.arange(IGNORE_INDEX + 1) > LEVELS // 2).astype(np.uint8)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table[codes]
