"""Mask operations in metres: removal of small clouds, and a margin around the others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.postprocess import Postprocess

BLOCK = 1024
"""Number of rows buffered at a time."""


def remove_small(mask: NDArray[np.uint8], pixel: tuple[float, float], area_m2: float) -> None:
    """Clear connected clouds (by their sides) below a minimum area.

    Args:
        mask: H x W of {0, 1, 255}; changed in place.
        pixel: Height and width of a pixel [m].
        area_m2: Smallest area of a cloud to keep [m²].
    """
    pixels = math.ceil(area_m2 / math.prod(pixel))
    if pixels > 1:
        cloud = mask == 1
        mask[cloud & ~Postprocess(min_area_pixels=pixels).clean(cloud[np.newaxis])[0]] = 0


def add_buffer(mask: NDArray[np.uint8], pixel: tuple[float, float], distance_m: float) -> None:
    """Set clear pixels to cloud if their centre is within a distance from the centre of a cloudy pixel.

    Args:
        mask: H x W of {0, 1, 255}; changed in place, except where there is no data.
        pixel: Height and width of a pixel [m].
        distance_m: The distance [m].
    """
    height, reach = len(mask), math.floor(distance_m / pixel[0])
    cloud = mask == 1
    for start in range(0, height, BLOCK):
        above = max(0, start - reach)
        part = cloud[above : start + BLOCK + reach]
        if part.any():
            inner = slice(start - above, start - above + BLOCK)
            near = distance_transform_edt(~part, sampling=pixel)[inner] <= distance_m
            rows = mask[start : start + BLOCK]
            rows[near & (rows != IGNORE_INDEX)] = 1
