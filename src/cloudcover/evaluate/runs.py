"""Confusion counts of runs over chips, against given labels or true masks: the source of all figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.runs import member_of
from cloudcover.config.sections import PredictionParams, Tta
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.masks.out_of_fold import BundleMasks, OutOfFold
from cloudcover.masks.overlap import confusion

BATCH = 64
FINAL, ENSEMBLE = "final", "ensemble"
"""The bundle as delivered, and the plain mean of its models, which is used to compare TTA policies."""

Masks = Callable[[list[str]], NDArray[np.uint8 | np.bool_]]
"""Function from chip ids to N x H x W labels of {0, 1, 255} or predictions; a prediction is cloud where it equals 1."""


@dataclass(frozen=True)
class JudgedRun:
    """A run under one TTA policy: its name, and its masks of the evaluated chips."""

    name: str
    tta: Tta
    masks: Masks


def judged_chips(manifest: pd.DataFrame, index: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """List the chips on which all runs are evaluated.

    These are the chips of the test part. Without a test part they are all chips, with out-of-fold predictions.

    Args:
        manifest: `tables.MANIFEST`.
        index: `tables.INDEX`.
        folds: `tables.FOLDS`.

    Returns:
        The columns chip_id, verdict, fold, location and scene.
    """
    places = index[["chip_id", "location", "scene"]].reset_index(drop=True)
    chips = manifest[["chip_id", "verdict"]].merge(folds[["chip_id", "fold"]], on="chip_id", validate="one_to_one")
    chips = chips.merge(places, on="chip_id", validate="one_to_one")
    test = chips["fold"] == TEST
    return chips[test].reset_index(drop=True) if test.any() else chips


def judged_runs(
    names: Sequence[str], folders: Sequence[Path], bundle: BundleMasks, params: PredictionParams, threshold: float
) -> list[JudgedRun]:
    """Open the predictions of all runs on the evaluated chips.

    Args:
        names: Names of the runs; those of final members begin with `final/`.
        folders: Their predictions, in the same order.
        bundle: The bundle's masks of the test part. Without a test part, the out-of-fold mean of its models is used
            instead.
        params: TTA policies.
        threshold: Probability above which a pixel is cloud.
    """

    def at_threshold(predictions: OutOfFold, tta: Tta) -> Masks:
        return lambda chip_ids: predictions.probabilities(chip_ids, tta) > threshold

    runs = [
        JudgedRun(name, params.tta, at_threshold(OutOfFold([folder]), params.tta))
        for name, folder in zip(names, folders, strict=True)
    ]
    members = OutOfFold([folder for name, folder in zip(names, folders, strict=True) if member_of(name)])
    runs += [JudgedRun(ENSEMBLE, tta, at_threshold(members, tta)) for tta in params.final_tta]
    final = at_threshold(members, params.tta) if bundle.table.empty else bundle.masks
    return [*runs, JudgedRun(FINAL, params.tta, final)]


def count(runs: Sequence[JudgedRun], chips: pd.DataFrame, labels: Masks) -> pd.DataFrame:
    """Count true and false positives and negatives of each chip and run.

    Args:
        runs: Result of `judged_runs`.
        chips: Result of `judged_chips`.
        labels: Given labels or true masks.

    Returns:
        `tables.COUNTS`.
    """
    frames = [tables.COUNTS.empty()[["chip_id", "run", "tta", *list(tables.COUNTS.columns)[-4:]]]]
    for run in runs:
        for batch in ChipStore.batches(chips["chip_id"], BATCH):
            pixels = confusion(run.masks(batch) == 1, np.asarray(labels(batch), np.uint8))
            frame = pd.DataFrame(pixels, columns=list(tables.COUNTS.columns)[-4:])
            frames.append(frame.assign(chip_id=batch, run=run.name, tta=run.tta))
    counts = pd.concat(frames, ignore_index=True).merge(chips, on="chip_id", validate="many_to_one")
    return tables.COUNTS.check(counts, "counts")
