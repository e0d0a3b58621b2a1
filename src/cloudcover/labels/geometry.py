"""Evidence from the shape of label masks: straight lines, shifts, blobs, masks of other chips.

Axes: N chips, H x W pixels. Labels are uint8 of {0, 1, 255}. Clouds have no straight edges and no edge along a whole
border of the chip, and their outline is as rough as that of the prediction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.labels.disagreement import dilate
from cloudcover.masks.overlap import iou

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BATCH = 4
"""Number of chips per task, small enough for the processor's cache."""
COARSE = 64
"""Side of the reduced masks in the search for shifts [cells]."""
THUMBNAIL = 16
"""Side of the reduced masks for comparing all chips with each other [cells]."""
ANGLES = 36
"""Number of directions in the search for straight edges."""
SMALLEST_SHIFT = 1 / 40
"""Shifts below this share of the side are ignored as drawing style."""
LARGEST_SHIFT = 2 / 5
"""Largest shift in the search, as a share of the side."""


def reduce(masks: NDArray[np.generic], side: int) -> NDArray[np.float32]:
    """Average square cells: N x H x W to N x side x side float32 (H and W at least `side`; a remainder is cropped)."""
    height, width = masks.shape[1] // side, masks.shape[2] // side
    cut = masks[:, : height * side, : width * side].astype(np.float32)
    return np.asarray(cut.reshape(len(masks), side, height, side, width).mean(axis=(2, 4)))


def enlarge(values: NDArray[np.float32], height: int) -> NDArray[np.float32]:
    """Resample N x S x S to N x height x height bilinearly, constant beyond the centres of the outer cells."""
    side = values.shape[1]
    place = np.clip((np.arange(height) + 0.5) * side / height - 0.5, 0, side - 1)
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(side)), 0).astype(np.float32)
    return np.asarray(weights @ values @ weights.T, np.float32)


def geometry_evidence(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> dict[str, Floats]:
    """Describe the shape of labels, alone and compared with the prediction.

    Args:
        probabilities: N x H x W float32 in [0, 1].
        labels: N x H x W uint8 of {0, 1, 255}.

    Returns:
        N values each: `inverted_iou`, IoU of the prediction and the label's complement; `best_shift_pixels`,
        `shifted_iou` and `shift_gain_iou` (see `best_shift`); `axis_edge_share`, see `axis_edge`;
        `straight_edge_share`, see `straight_edge`; `outline_ratio`, length of the label's outline over the
        prediction's, at equal area (1 where either has none).
    """
    known = labels != IGNORE_INDEX
    label = labels == 1
    predicted = (probabilities > 0.5) & known
    columns = {
        "inverted_iou": iou(predicted, ~label & known),
        **best_shift(predicted, label),
        "axis_edge_share": axis_edge(label, predicted),
        "straight_edge_share": straight_edge(label, predicted),
        "outline_ratio": _outline_ratio(label, predicted),
    }
    return columns


def best_shift(predicted: Bools, label: Bools) -> dict[str, Floats]:
    """Find the shift of the label that best matches the prediction.

    The IoU over the common part of both masks is computed for all shifts at once, by FFT cross-correlation of masks
    reduced to `COARSE` cells.

    Returns:
        `best_shift_pixels` (length), `shifted_iou` (IoU there) and `shift_gain_iou` (above the IoU without shift, both
        at reduced size; 0 where no shift of at least `SMALLEST_SHIFT` is better).
    """
    side = min(COARSE, *label.shape[1:])
    a, b = reduce(predicted, side), reduce(label, side)
    reach = int(side * LARGEST_SHIFT)
    shape = (2 * side, 2 * side)
    window = np.ones((1, side, side), np.float32)
    spectra = [fft.rfft2(x, shape) for x in (a, b, window)]

    def correlate(x: NDArray[np.complex64], y: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return the sum over pixels of x[i + d] y[i] for every shift d within range."""
        full = np.roll(fft.irfft2(x * np.conj(y), shape), (reach, reach), axis=(1, 2))
        return np.asarray(full[:, : 2 * reach + 1, : 2 * reach + 1])

    both = correlate(spectra[0], spectra[1])
    union = correlate(spectra[0], spectra[2]) + correlate(spectra[2], spectra[1]) - both
    cells = 0.01 * side * side
    scores = np.where(union > cells, both / np.maximum(union, cells), 0.0).reshape(len(a), -1)
    offsets = np.arange(-reach, reach + 1)
    length = np.hypot(*np.meshgrid(offsets, offsets, indexing="ij")).ravel()
    own = scores[:, length.argmin()]
    scores = np.where(length >= max(1.5, SMALLEST_SHIFT * side), scores, -1.0)
    best = scores.argmax(axis=1)
    found = scores[np.arange(len(a)), best]
    gain = np.maximum(found - own, 0)
    return {
        "best_shift_pixels": np.where(gain > 0, length[best] * (label.shape[1] // side), 0.0),
        "shifted_iou": found.astype(np.float64),
        "shift_gain_iou": gain.astype(np.float64),
    }


def axis_edge(label: Bools, predicted: Bools) -> Floats:
    """Find the longest edge of the label along a row or column, in one direction, beyond that of the prediction.

    Stripes at the border and rectangles have such an edge; outlines drawn around clouds do not.

    Returns:
        N float64, as a share of the chip's side.
    """
    worst = np.zeros(len(label))
    for axis in (1, 2):
        step = np.diff(label.astype(np.int8), axis=axis)
        own = np.diff(predicted.astype(np.int8), axis=axis)
        near = ndimage.maximum_filter(np.abs(own), (1, 3, 3), mode="nearest") > 0
        for sense in (-1, 1):
            edge = ((step == sense) & ~near).mean(axis=3 - axis)
            worst = np.maximum(worst, edge.max(axis=1))
    return worst


def straight_edge(label: Bools, predicted: Bools) -> Floats:
    """Find the longest straight stretch of the label's outline that the prediction does not have.

    This is a Hough transform that counts only outline pixels whose own direction matches the line (Duda & Hart 1972,
    with the gradient's direction as in Ballard 1981). Pixels near the prediction's outline are excluded.

    Returns:
        N float64, the number of pixels on the line divided by the chip's side.
    """
    height, width = label.shape[1:]
    smooth = ndimage.gaussian_filter(label.astype(np.float32), (0, 2, 2), mode="nearest")
    down, right = ndimage.sobel(smooth, 1), ndimage.sobel(smooth, 2)
    outline = label & ~_erode(label)
    shared = dilate(predicted & ~_erode(predicted), 3)
    inside = np.zeros((height, width), np.bool_)
    inside[3:-3, 3:-3] = True
    chip, row, column = np.nonzero(outline & ~shared & inside)
    if not len(chip):
        return np.zeros(len(label))
    angle = np.arctan2(down[chip, row, column], right[chip, row, column])
    reach = int(np.hypot(height, width)) + 1
    # Each pixel votes for the direction of its gradient and its two neighbours.
    nearest = np.rint(angle / (2 * np.pi) * ANGLES).astype(np.int64)
    code = (nearest[:, None] + [-1, 0, 1]) % ANGLES
    theta = code * (2 * np.pi / ANGLES)
    offset = np.rint((column[:, None] * np.cos(theta) + row[:, None] * np.sin(theta)) / 2).astype(np.int64) + reach
    line, votes = np.unique((chip[:, None] * ANGLES + code) * (2 * reach + 1) + offset, return_counts=True)
    longest = np.zeros(len(label))
    np.maximum.at(longest, line // ((2 * reach + 1) * ANGLES), votes.astype(np.float64))
    return np.asarray(longest / min(height, width))


def _erode(masks: Bools) -> Bools:
    return ~dilate(~masks, 1)


def _outline_ratio(label: Bools, predicted: Bools) -> Floats:
    def roughness(masks: Bools) -> Floats:
        edges = sum(np.diff(masks, axis=axis).sum(axis=(1, 2)) for axis in (1, 2))
        area = np.minimum(masks.sum(axis=(1, 2)), (~masks).sum(axis=(1, 2)))
        return np.asarray(edges / np.sqrt(np.maximum(area, 1)), np.float64)

    a, b = roughness(label), roughness(predicted)
    return np.divide(a, b, out=np.ones(len(a)), where=(a > 0) & (b > 0))


def best_match(
    labels: NDArray[np.float32], predictions: NDArray[np.float32], block: int = 512
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Find the chip whose prediction a label resembles most.

    Resemblance is Pearson's correlation of small masks, of every label with every prediction, in blocks of `block`
    labels.

    Args:
        labels: N x S x S float32, result of `reduce`.
        predictions: N x S x S float32, result of `reduce`.
        block: Number of labels per matrix product, which bounds memory to `block` x N.

    Returns:
        Correlation with the own prediction, the largest correlation with another chip's, and the number of that chip (0
        if either mask is constant).
    """

    def standardised(masks: NDArray[np.float32]) -> NDArray[np.float32]:
        flat = masks.reshape(len(masks), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        return np.asarray(np.where(norm > 0.02 * np.sqrt(flat.shape[1]), flat / np.maximum(norm, 1e-6), 0), np.float32)

    a, b = standardised(labels), standardised(predictions)
    own = (a * b).sum(axis=1)
    other, which = np.zeros(len(a)), np.zeros(len(a), np.int64)
    for start in range(0, len(a), block):
        part = slice(start, min(start + block, len(a)))
        similar = a[part] @ b.T
        similar[np.arange(similar.shape[0]), np.arange(part.start, part.stop)] = -1
        which[part] = similar.argmax(axis=1)
        other[part] = similar.max(axis=1)
    return own.astype(np.float64), other, which
