"""Windows over an image: where they are, and the weights that blend them into one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Span:
    """The place of a window along one axis of an image.

    Attributes:
        source: For each pixel of the window the image's pixel that it shows; mirrored beyond the image's border.
        inner: The window's pixels that are inside the image.
        target: The same pixels in the image.
        weights: Share of this window in the result at each of them; the shares of all windows sum to 1.
    """

    source: NDArray[np.intp]
    inner: slice
    target: slice
    weights: NDArray[np.float32]

    @property
    def reach(self) -> slice:
        """The part of the image that the window shows."""
        return slice(int(self.source.min()), int(self.source.max()) + 1)


def whole(length: int) -> Span:
    """Return a window that shows the whole axis, as it is."""
    every = slice(0, length)
    return Span(np.arange(length), every, every, np.ones(length, np.float32))


def least_side(length: int, most: int, overlap: int, step: int) -> int:
    """Return the smallest windows that cover an axis by no more windows than the largest ones need.

    Args:
        length: Pixels of the image along the axis.
        most: Pixels of the largest window.
        overlap: See `spans`.
        step: The result is a multiple of it, or `most`.
    """
    total = length + overlap // 2 * 2
    count = max(1, math.ceil((total - overlap) / (most - overlap)))
    return min(most, math.ceil((total + (count - 1) * overlap) / count / step) * step)


def spans(length: int, side: int, overlap: int) -> list[Span]:
    """Cover an axis by windows.

    Neighbours overlap by at least `overlap` pixels. In the middle half of that one fades into the other along a raised
    cosine; the outer quarters, where a network sees the window's edge, do not count. The image is mirrored by half an
    overlap at its borders: there a pixel is as far from the window's edge as the pixel in the middle between two
    windows, so a border is predicted no worse than the inside.

    Args:
        length: Pixels of the image along the axis.
        side: Pixels of a window.
        overlap: See above, less than `side`.
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
    """Pixels of an axis for places beyond its ends; the edge is repeated (a, b, c goes on as c, b, a, a, b)."""
    turned = places % (2 * length)
    return np.minimum(turned, 2 * length - 1 - turned)
