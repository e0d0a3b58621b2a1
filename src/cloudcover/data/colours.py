"""Display colours: the bands for red, green and blue, and their brightness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""H x W x 3, sRGB."""

STRETCH = 0.6
"""Reflectance displayed as white; fixed, so that pictures are comparable."""
GAMMA = 1.5
"""Gamma of the display, reflectance ** (1 / GAMMA)."""

CLEAR_COLOUR, CLOUD_COLOUR, UNKNOWN_COLOUR = (38, 50, 64), (240, 244, 248), (128, 128, 128)
"""Colours of a mask's values."""
PREDICTION_COLOUR = (34, 211, 238)
"""Colour of the outline of predicted cloud."""


def true_bands(names: Sequence[str]) -> list[int]:
    """Return the positions of red, green and blue; if unknown, of the first three bands, or the first as grey."""
    if {"B04", "B03", "B02"} <= set(names):
        return [list(names).index(name) for name in ("B04", "B03", "B02")]
    return [0, 1, 2] if len(names) >= 3 else [0, 0, 0]


def false_bands(names: Sequence[str]) -> list[int] | None:
    """Return the positions of near infrared, red and green, which show vegetation in red; None without these bands."""
    wanted = ("B08", "B04", "B03")
    return [list(names).index(name) for name in wanted] if set(wanted) <= set(names) else None


def displayed(values: NDArray[np.floating], gamma: float) -> NDArray[np.uint8]:
    """Convert values from 0 (black) to 1 (white), any shape, to bytes with the gamma value ** (1 / gamma)."""
    return np.asarray(np.rint(np.clip(values, 0, 1) ** (1 / gamma) * 255), np.uint8)
