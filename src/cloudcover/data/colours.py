"""Bands as colours: which of them are red, green and blue, and how bright they are shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""H x W x 3, sRGB."""

STRETCH = 0.6
"""Reflectance that is shown white; fixed, so that pictures can be compared with each other."""
GAMMA = 1.5
"""The display is brightened by reflectance ** (1 / GAMMA)."""

CLEAR_COLOUR, CLOUD_COLOUR, UNKNOWN_COLOUR = (38, 50, 64), (240, 244, 248), (128, 128, 128)
"""Colours of a mask's values."""
PREDICTION_COLOUR = (34, 211, 238)
"""Outline of predicted cloud."""


def true_bands(names: Sequence[str]) -> list[int]:
    """Places of red, green and blue; for other names the first three bands, or the first one in grey."""
    if {"B04", "B03", "B02"} <= set(names):
        return [list(names).index(name) for name in ("B04", "B03", "B02")]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def false_bands(names: Sequence[str]) -> list[int] | None:
    """Places of near infrared, red and green, by which vegetation is red; None without these bands."""
    wanted = ("B08", "B04", "B03")
    return [list(names).index(name) for name in wanted] if set(wanted) <= set(names) else None


def displayed(values: NDArray[np.floating], gamma: float) -> NDArray[np.uint8]:
    """Bytes of values from 0 (black) to 1 (white), brightened by value ** (1 / gamma); any shape."""
    return np.asarray(np.rint(np.clip(values, 0, 1) ** (1 / gamma) * 255), np.uint8)
