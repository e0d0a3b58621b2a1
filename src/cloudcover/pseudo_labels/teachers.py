"""Calibration of a round's models, with one temperature per fold, to make their confidence comparable.

The meaning of a probability threshold depends on the loss, the length of training and the averaging of views: the
Lovász hinge, for example, gives no incentive to go beyond 0.27 and 0.73. So probabilities are calibrated before any
rule is applied.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cloudcover.config.sections import Tta
from cloudcover.data.store import ChipStore
from cloudcover.masks.codec import PREDICTION_STEPS, encode_predictions
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.temperature import fit_temperature, histogram

BATCH = 32
"""Number of chips processed together."""


def temperatures(store: ChipStore, manifest: pd.DataFrame, predictions: OutOfFold, tta: Tta) -> dict[int, float]:
    """Fit the temperature of each fold's teacher on the trusted labels of the other folds.

    The predictions for those labels come from other models of the same recipe, so no teacher is calibrated on chips
    that it relabels.

    Args:
        store: The packed chips.
        manifest: `tables.MANIFEST`: the verdicts after the round.
        predictions: Out-of-fold probabilities of the round's models.
        tta: Policy of these probabilities.

    Returns:
        One temperature per fold (`decision.apply_temperature`); 1 if the other folds have no trusted label.
    """
    fold_of = predictions.table["fold"]
    folds = sorted(set(fold_of))
    sums = {fold: np.zeros((2, PREDICTION_STEPS + 1), np.int64) for fold in folds}
    trusted = pd.Index(manifest.loc[manifest["label"] == "human", "chip_id"]).intersection(fold_of.index)
    for fold in folds:
        for batch in store.batches(trusted[fold_of.loc[trusted] == fold], BATCH):
            levels = encode_predictions(predictions.probabilities(batch, tta))
            sums[fold] += histogram(levels, store.labels(batch))
    everything = sum(sums.values())
    return {fold: fit_temperature(everything - own) for fold, own in sums.items()}
