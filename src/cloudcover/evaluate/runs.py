"""Confusion counts of runs over chips, against given labels or true masks: the table that all figures come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.overlap import confusion

BATCH = 64


def count(
    runs: Mapping[str, OutOfFold],
    policies: Sequence[Tta],
    chips: pd.DataFrame,
    labels: Callable[[list[str]], NDArray[np.uint8]],
    threshold: float,
) -> pd.DataFrame:
    """Counts true and false positives and negatives of each chip, run and policy.

    Args:
        runs: out-of-fold predictions by name of the run.
        policies: test-time augmentations.
        chips: chip_id, location, scene, verdict.
        labels: gives N x H x W uint8 of {0, 1, 255} for N chip ids.
        threshold: a pixel is cloud at p above this.

    Returns:
        `tables.COUNTS`.
    """
    frames = []
    for name, oof in runs.items():
        for policy in policies:
            for batch in ChipStore.batches(chips["chip_id"], BATCH):
                predicted = oof.probabilities(batch, policy) > threshold
                frame = pd.DataFrame(confusion(predicted, labels(batch)), columns=list(tables.COUNTS.columns)[-4:])
                frames.append(
                    frame.assign(chip_id=batch, run=name, tta=policy, fold=oof.table.loc[batch, "fold"].to_numpy())
                )
    counts = pd.concat(frames, ignore_index=True).merge(
        chips[["chip_id", "location", "scene", "verdict"]], on="chip_id", validate="many_to_one"
    )
    return tables.COUNTS.check(counts, "counts")
