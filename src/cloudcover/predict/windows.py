"""Windows over an image: their placement, and the weights for blending them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """The placement of a window along one axis of an image.

    Attributes:
        source: Image pixel shown by each pixel of the window; mirrored beyond the image's border.
        inner: Pixels of the window inside the image.
        target: The same pixels in the image.
        weights: Weight of this window at each of them; the weights of all windows sum to 1.
    """

    source: NDArray[np.intp]
    inner: slice
    target: slice
    weights: NDArray[np.float32]

    @property
    def reach(self) -> slice:
        """Return the part of the image that the window shows."""
        return slice(int(self.source.min()), int(self.source.max()) + 1)


def whole(length: int) -> Span:
    """Return a window that shows the whole axis unchanged."""
    every = slice(0, length)
    return Span(np.arange(length), every, every, np.ones(length, np.float32))


def least_side(length: int, most: int, overlap: int, step: int) -> int:
    """Find the smallest windows that cover an axis with no more windows than the largest ones need.

    Args:
        length: Number of image pixels along the axis.
        most: Number of pixels of the largest window.
        overlap: See `spans`.
        step: Step of the result, which is a multiple of it or `most`.
    """
    total = length + overlap // 2 * 2
    count = max(1, math.ceil((total - overlap) / (most - overlap)))
    return min(most, math.ceil((total + (count - 1) * overlap) / count / step) * step)


def spans(length: int, side: int, overlap: int) -> list[Span]:
    """Cover an axis with windows.

    Neighbours overlap by at least `overlap` pixels. In the middle half of the overlap, one fades into the other along a
    raised cosine. The outer quarters, where the network sees the window's edge, are not used. At its borders the image
    is mirrored by half an overlap. A border pixel is then as far from the window's edge as a pixel midway between two
    windows, so borders are predicted no worse than the inside.

    Args:
        length: Number of image pixels along the axis.
        side: Number of pixels of a window.
        overlap: Minimum overlap, less than `side`.
    """
    total = max(length + overlap // 2 * 2, side)
    count = 1 + math.ceil((total - side) / (side - overlap))
    starts = np.linspace(0, total - side, count).round().astype(int) - (total - length) // 2
    edge = overlap // 4
    rising = np.sin(np.pi / 2 * np.clip((np.arange(side) + 0.5 - edge) / (overlap - 2 * edge), 0, 1)) ** 2
    profile = np.minimum(rising, rising[::-1])
    inside = [(max(start, 0), min(start + side, length)) for start in starts.tolist()]
    weights = np.zeros((count, length))
    for row, start, (low, high) in zip(weights, starts, inside, strict=True):
        row[low:high] = profile[low - start : high - start]
    weights /= weights.sum(axis=0)
    return [
        Span(
            mirrored(np.arange(start, start + side), length),
            slice(low - start, high - start),
            slice(low, high),
            row[low:high].astype(np.float32),
        )
        for row, start, (low, high) in zip(weights, starts.tolist(), inside, strict=True)
    ]


def mirrored(places: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Return axis pixels for positions beyond its ends, repeating the edge: a, b, c continues as c, b, a, a, b."""
    turned = places % (2 * length)
    return np.minimum(turned, 2 * length - 1 - turned)
