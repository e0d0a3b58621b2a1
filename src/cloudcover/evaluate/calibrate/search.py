"""The search for post-processing and its threshold, by Optuna."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from cloudcover.evaluate.calibrate.candidate import InferenceCandidate, Scorer
from cloudcover.masks.postprocess import Postprocess, Triplet

STEPS: dict[str, tuple[float | int, ...]] = {
    "gaussian_sigma_pixels": (0.0, 0.5, 1.0, 2.0),
    "median_pixels": (0, 3, 5),
    "opening_pixels": (0, 3, 5, 9),
    "closing_pixels": (0, 3, 5, 9),
    "hole_pixels": (0, 16, 64, 256),
    "min_area_pixels": (0, 16, 64, 256),
}
"""Candidate values for each step; the first value skips it."""
MARGIN = 0.2
"""Maximum distance of tried thresholds from the current one."""


def search(
    scorer: Scorer, rows: NDArray[np.bool_], start: InferenceCandidate, trials: int, seed: int
) -> InferenceCandidate:
    """Find the post-processing and threshold with the highest global Jaccard on some chips.

    The first trials are no post-processing and each single step. The next ones are random, and later ones come from a
    tree-structured Parzen estimator (Bergstra et al. 2011). The first of equals wins, so no step is used without a
    gain. Candidates that lose small clouds (`Scorer.keeps_small`) rank below all others.

    Args:
        scorer: Evaluates candidates.
        rows: Chips to choose on; other chips have no influence.
        start: Steps used so far.
        trials: Number of candidates.
        seed: Random seed for the trials; equal seeds share their random trials.

    Returns:
        The best candidate; `start` if there are no trials or no chips.
    """
    if not trials or not rows.any():
        return start
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    off: dict[str, Any] = {name: values[0] for name, values in STEPS.items()}
    off |= {"triplet": False, "threshold": start.threshold}
    study.enqueue_trial(off)
    for name, values in STEPS.items():
        study.enqueue_trial(off | {name: values[1]})
    original_rule = {"square_pixels": 32, "sure": 0.8, "sure_pixels": 2}
    study.enqueue_trial(off | {"triplet": True, **original_rule})

    def value(trial: optuna.Trial) -> float:
        candidate = _suggest(trial, start)
        return scorer.jaccard(candidate, rows) - (not scorer.keeps_small(candidate, start, rows))

    study.optimize(value, n_trials=trials)
    return _suggest(study.best_trial, start)


def _suggest(trial: optuna.Trial | optuna.trial.FrozenTrial, start: InferenceCandidate) -> InferenceCandidate:
    steps: dict[str, Any] = {name: trial.suggest_categorical(name, values) for name, values in STEPS.items()}
    if trial.suggest_categorical("triplet", (False, True)):
        steps["triplet"] = Triplet(
            square_pixels=trial.suggest_categorical("square_pixels", (16, 32, 64)),
            sure=trial.suggest_float("sure", 0.6, 0.95),
            sure_pixels=trial.suggest_int("sure_pixels", 1, 64, log=True),
        )
    low, high = max(0.01, start.threshold - MARGIN), min(0.99, start.threshold + MARGIN)
    return replace(start, postprocess=Postprocess(**steps), threshold=trial.suggest_float("threshold", low, high))
