"""Weights of a linear combination of several models' probabilities."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.evaluate.calibrate.held_out import HeldOut, Weights
from cloudcover.masks.codec import decode_predictions
from cloudcover.masks.decision import LEAST

Kind = Literal["oof", "fold"]
PIXELS = 400
"""Pixels per chip that weights are fitted to; neighbouring pixels are redundant."""


def fit_weights(probabilities: NDArray[np.floating], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit weights, non-negative with sum 1, whose mean has the lowest log loss.

    This is a linear opinion pool (Stone 1961), a convex problem.

    Args:
        probabilities: Members x pixels, in [0, 1].
        labels: Labels of the pixels.

    Returns:
        One weight per member; equal weights if there are no pixels.
    """
    members = len(probabilities)
    start = np.full(members, 1 / members)
    if members == 1 or not labels.size:
        return start
    cloud = np.clip(probabilities, LEAST, 1 - LEAST)
    given = np.where(labels, cloud, 1 - cloud).astype(
        np.float64
    )  # the probability that each member gives to the true class

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mean = np.maximum(weights @ given, 1e-9)  # the solver may try weights slightly out of bounds
        return -float(np.log(mean).mean()), -(given / mean).mean(axis=1)

    found = minimize(
        loss, start, jac=True, method="SLSQP", bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    ).x  # fmt: skip
    found = np.clip(found, 0, 1)
    return np.asarray(found / found.sum())


def weights_on(held: HeldOut, rows: NDArray[np.bool_], kind: Kind, seed: int) -> Weights:
    """Fit weights on some chips.

    Args:
        held: The predictions.
        rows: Selected chips; bool, one per chip.
        kind: `oof`: one set of weights for all folds; `fold`: one set per fold on its chips, as in the original.
        seed: Random seed for choosing pixels.
    """
    sets = []
    for fold in range(held.folds):
        chosen = np.flatnonzero(rows & (held.chips["fold"].to_numpy() == fold) if kind == "fold" else rows)
        sets.append(tuple(fit_weights(*_pixels(held, chosen, seed)).tolist()))
        if kind == "oof":
            return (sets[0],) * held.folds
    return tuple(sets)


def _pixels(held: HeldOut, chips: NDArray[np.intp], seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Sample valid pixels of the chips, at the same places in all of them: members x pixels, and their labels."""
    area = held.labels[0].size
    places = np.random.default_rng(seed).choice(area, min(PIXELS, area), replace=False)
    labels = held.labels.reshape(len(held.labels), area)[chips][:, places].ravel()
    levels = held.probabilities.reshape(len(held.members), -1, area)[:, chips][:, :, places]
    valid = labels != IGNORE_INDEX
    probabilities = decode_predictions(levels.reshape(len(held.members), -1)[:, valid])
    return probabilities, np.asarray(labels[valid] == 1)
