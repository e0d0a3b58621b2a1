"""Overlap of masks: the Jaccard index, and the confusion counts per chip that all figures of the evaluation come from.

A share of 0 / 0 is 1: if neither of two masks has cloud, none was missed and none is false.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cloudcover.data.chips import IGNORE_INDEX

COLUMNS = ("tp_pixels", "fp_pixels", "fn_pixels", "tn_pixels")
CLEAR, CLOUD = 0, 1

Floats = NDArray[np.float64]


def confusion(prediction: NDArray[np.bool_ | np.uint8], label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each chip that are cloud or clear in prediction and label.

    A 0/255 mask cannot be distinguished from a label without cloud and with unknown pixels, so the reader of labels
    must reject such a set.

    Args:
        prediction: N x H x W, bool, or uint8 of 0 and 1 (cloud).
        label: N x H x W uint8: 0 clear, 1 cloud, 255 unknown, which is ignored.

    Returns:
        N x 4 int64 in the order of `COLUMNS`: numbers of true positive, false positive, false negative and true
        negative pixels.

    Raises:
        ValueError: Shapes or dtypes are wrong, or there is another value; the message contains the histogram.
    """
    if prediction.ndim != 3 or prediction.shape != label.shape:
        raise ValueError(f"prediction {prediction.shape} and label {label.shape} must both be N x H x W")
    if prediction.dtype not in (np.bool_, np.uint8) or label.dtype != np.uint8:
        raise ValueError(
            f"prediction must be bool or uint8 and label uint8, not {prediction.dtype} and {label.dtype}; "
            "compare probabilities with a threshold first"
        )
    if prediction.dtype == np.uint8 and prediction.max(initial=0) > CLOUD:
        raise ValueError(f"a prediction holds values other than 0 and 1: {_histogram(prediction)}")
    counts = np.empty((len(label), 4), np.int64)
    # A single chip stays in the processor's cache; counting a whole bool array is one pass of SIMD code.
    for chip, (predicted, given) in enumerate(zip(prediction.view(np.bool_), label, strict=True)):
        cloud, clear = given == CLOUD, given == CLEAR
        positive, negative = np.count_nonzero(cloud), np.count_nonzero(clear)
        if positive + negative + np.count_nonzero(given == IGNORE_INDEX) != given.size:
            raise ValueError(
                f"the label of chip {chip} of {len(label)} holds values other than 0 (clear), 1 (cloud) and "
                f"255 (unknown); pixels per value: {_histogram(given)}"
            )
        tp, fp = np.count_nonzero(predicted & cloud), np.count_nonzero(predicted & clear)
        counts[chip] = tp, fp, positive - tp, negative - fp
    return counts


def share(part: ArrayLike, whole: ArrayLike) -> Floats:
    """Divide numbers of pixels elementwise, `part / whole` [0-1]; 0 / 0 gives 1."""
    part, whole = np.asarray(part), np.asarray(whole)
    return np.asarray(np.divide(part, whole, out=np.ones(whole.shape), where=whole > 0))


def jaccard_index(counts: NDArray[np.int64]) -> Floats:
    """Compute intersection over union from sums of pixels, … x 4 in the order of `COLUMNS`."""
    tp, fp, fn, _ = np.moveaxis(counts, -1, 0)
    return share(tp, tp + fp + fn)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Floats:
    """Compute the intersection over union of pairs of masks, … x H x W, over the last two axes."""
    return share((a & b).sum(axis=(-2, -1)), (a | b).sum(axis=(-2, -1)))


def _histogram(values: NDArray[np.bool_ | np.uint8]) -> dict[int, int]:
    found = np.bincount(values.ravel(), minlength=256)
    return {int(value): int(found[value]) for value in np.flatnonzero(found)}
