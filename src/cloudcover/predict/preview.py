"""Previews: small true-colour pictures with the outline of the predicted cloud."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from cloudcover.data.colours import GAMMA, PREDICTION_COLOUR, STRETCH, Picture, displayed
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.runtime.files import atomic

SIDE = 1024
"""Maximum length of a preview's longer side [pixels]."""


class Thumbnail:
    """A small picture of an image that arrives in parts; each of its pixels is the mean of a square.

    Args:
        height: Height of the image [pixels].
        width: Its width [pixels].
        bands: Positions of red, green and blue among its bands.
    """

    def __init__(self, height: int, width: int, bands: list[int]) -> None:
        self._bands = bands
        self._step = math.ceil(max(height, width) / SIDE)
        rows, columns = (np.arange(0, side, self._step) for side in (height, width))
        self._columns = columns
        self._sums = np.zeros((3, len(rows), len(columns)), np.uint32)
        counts = np.diff(rows, append=height)[:, np.newaxis] * np.diff(columns, append=width)
        self._whole_dn = counts * (STRETCH * DN_PER_REFLECTANCE)

    def add(self, row: int, dn: NDArray[np.uint16]) -> None:
        """Add rows of the image: B x H x W uint16 [DN], beginning at `row`."""
        places = np.arange(row, row + dn.shape[1]) // self._step
        for total, band in zip(self._sums, self._bands, strict=True):
            np.add.at(total, places, np.add.reduceat(dn[band], self._columns, axis=1, dtype=np.uint32))

    def outlined(self, mask: NDArray[np.uint8]) -> Picture:
        """Return the picture with the inner cloud outline of a mask H x W of {0, 1, 255}."""
        picture = displayed(self._sums / self._whole_dn, GAMMA).transpose(1, 2, 0).copy()
        middle = self._step // 2
        rows, columns = (np.minimum(np.arange(middle, n + middle, self._step), n - 1) for n in mask.shape)
        cloud = mask[np.ix_(rows, columns)] == 1
        picture[cloud & ~binary_erosion(cloud, border_value=1)] = PREDICTION_COLOUR
        return picture


def write_png(path: Path, picture: Picture) -> None:
    """Write a picture as a PNG, atomically.

    Raises:
        OSError: The file cannot be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    with atomic(path) as part:
        part.write_bytes(buffer.getvalue())
