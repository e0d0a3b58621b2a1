"""Disagreement between labels and the predictions of models that have not seen their scene.

Axes: N chips, H x W pixels. Labels are uint8 of {0, 1, 255}; 255 is always ignored. Probabilities are those of cloud.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.masks.overlap import iou

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERANCE_PIXELS = 3
"""Tolerance at boundaries, because people draw outlines a few pixels outside the cloud [pixels]."""
LEAST_CONFIDENCE = 0.55
"""Minimum probability of a class for a model to be confident of it."""
TEMPERATURE = 0.1
"""Temperature of the soft minimum, as in Lad & Mueller (2023)."""
AGAINST = 0.4
"""Probability of the label below which a prediction contradicts it."""


def dilate(masks: Bools, pixels: int) -> Bools:
    """Grow N x H x W masks by a square of 2 `pixels` + 1."""
    size = (1, 2 * pixels + 1, 2 * pixels + 1)
    return np.asarray(ndimage.maximum_filter(masks.view(np.uint8), size, mode="nearest").view(np.bool_))


def self_confidence(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> Floats:
    """Compute the soft minimum over pixels of the model's probability of the label.

    Lad & Mueller 2023, "Estimating label quality and errors in semantic segmentation data via any model"
    (arXiv:2307.05080): with q the probability of a pixel's label, the score is sum(q w), w = softmax((1 - q) / T).

    Returns:
        N float64 in [0, 1], low = suspicious; 1 for a chip without known pixels.
    """
    known = labels != IGNORE_INDEX
    q = np.where(labels == 1, probabilities, 1 - probabilities)
    weight = np.exp(-q / TEMPERATURE, dtype=np.float32) * known
    total = weight.sum(axis=(1, 2), dtype=np.float64)
    score = (q * weight).sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(np.divide(score, total, out=np.ones(len(q)), where=total > 0))


def confident_levels(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> tuple[float, float]:
    """Compute the probability from which a model is confident of a class: its mean where the label has that class.

    These are the thresholds of confident learning (Northcutt, Jiang & Chuang 2021, arXiv:1911.00068). They adapt to
    models that have learned little or underpredict a class.

    Args:
        probabilities: N x H x W float32 in [0, 1].
        labels: N x H x W uint8 of {0, 1, 255}.

    Returns:
        The levels for clear and for cloud, at least `LEAST_CONFIDENCE`; 0.8 for a class without pixels.
    """
    levels = []
    for value, confidence in ((0, 1 - probabilities), (1, probabilities)):
        chosen = confidence[labels == value]
        levels.append(max(float(chosen.mean(dtype=np.float64)), LEAST_CONFIDENCE) if chosen.size else 0.8)
    return levels[0], levels[1]


def model_evidence(
    probabilities: NDArray[np.float32], labels: NDArray[np.uint8], levels: tuple[float, float]
) -> dict[str, Floats]:
    """Measure the disagreement of labels and out-of-fold probabilities.

    Args:
        probabilities: N x H x W float32 in [0, 1].
        labels: N x H x W uint8 of {0, 1, 255}.
        levels: Result of `confident_levels`.

    Returns:
        N values each: `oof_iou`, `tolerant_iou` (ignoring disagreement within the tolerance of both outlines),
        `self_confidence`; `disagreement_share` = mean |p - y|, and `uncertainty_share` = mean 2 p (1 - p), its expected
        value for calibrated probabilities; `missed_share`, `false_share`: pixels beyond the tolerance where the model
        is confident of cloud (of clear); `label_share`, `predicted_share`: cloud in the label and in the prediction.
    """
    known = labels != IGNORE_INDEX
    label = labels == 1
    predicted = (probabilities > 0.5) & known
    number = np.maximum(known.sum(axis=(1, 2)), 1)
    error = np.abs(probabilities - label, dtype=np.float32) * known
    missed = (probabilities > levels[1]) & known & ~dilate(label, TOLERANCE_PIXELS)
    false = label & (1 - probabilities > levels[0]) & ~dilate(predicted, TOLERANCE_PIXELS)
    wrong = (predicted & ~dilate(label, TOLERANCE_PIXELS)) | (label & ~dilate(predicted, TOLERANCE_PIXELS))
    wrong &= known
    both = (predicted & label).sum(axis=(1, 2))
    seen = both + wrong.sum(axis=(1, 2))
    return {
        "oof_iou": iou(predicted, label),
        "tolerant_iou": np.where(seen > 0, both / np.maximum(seen, 1), 1.0),
        "self_confidence": self_confidence(probabilities, labels),
        "disagreement_share": error.sum(axis=(1, 2), dtype=np.float64) / number,
        "uncertainty_share": (2 * probabilities * (1 - probabilities) * known).sum(axis=(1, 2), dtype=np.float64)
        / number,
        "missed_share": missed.sum(axis=(1, 2)) / number,
        "false_share": false.sum(axis=(1, 2)) / number,
        "label_share": label.sum(axis=(1, 2)) / number,
        "predicted_share": predicted.sum(axis=(1, 2)) / number,
    }


def committee_evidence(views: NDArray[np.float32], labels: NDArray[np.uint8]) -> dict[str, Floats]:
    """Combine several predictions: where all of them contradict a label, a model error is unlikely.

    Args:
        views: V x N x H x W float32 in [0, 1], probabilities from V models of different kinds.
        labels: N x H x W uint8 of {0, 1, 255}.

    Returns:
        N values each: `all_against_share` and `any_against_share`, the shares of known pixels for whose label all (any)
        of the views give a probability below `AGAINST`.
    """
    known = labels != IGNORE_INDEX
    number = np.maximum(known.sum(axis=(1, 2)), 1)
    label = labels == 1
    most, least = views.max(axis=0), views.min(axis=0)
    return {
        name: ((believed < AGAINST) & known).sum(axis=(1, 2)) / number
        for name, believed in (
            ("all_against_share", np.where(label, most, 1 - least)),
            ("any_against_share", np.where(label, least, 1 - most)),
        )
    }
