"""Held-out predictions of the final models in memory, the basis of weights, temperature and other choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.model_selection import GroupKFold

from cloudcover.config.sections import CalibrationParams, Tta
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.masks.codec import PREDICTION_STEPS
from cloudcover.masks.postprocess import IN_PLANE
from cloudcover.masks.temperature import histogram
from cloudcover.runtime.arrays import open_array

SMALL_PIXELS = 256
"""Largest area of a small cloud: 2.6 ha at 10 m pixels, the largest that `search.STEPS` removes."""

Weights = tuple[tuple[float, ...], ...]
"""Weights of the members [fold][member]; those of a fold sum to 1."""


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold predictions of several members on the same labelled chips.

    Attributes:
        chips: Table with chip_id, location, scene, fold, verdict and group, one row per chip.
        members: Names of the members.
        probabilities: Members x N x H x W uint8, round(p x 255).
        labels: N x H x W uint8 of {0, 1, 255}.
        folds: Number of folds.
    """

    chips: pd.DataFrame
    members: Sequence[str]
    probabilities: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    folds: int
    _histograms: dict[Weights, NDArray[np.int64]] = field(default_factory=dict)

    @cached_property
    def small(self) -> NDArray[np.bool_]:
        """Pixels of label clouds of at most `SMALL_PIXELS` pixels: N x H x W bool."""
        cloud = self.labels == 1
        regions, number = ndimage.label(cloud, IN_PLANE)
        areas = np.bincount(regions.ravel(), minlength=number + 1)
        return np.asarray(cloud & (areas <= SMALL_PIXELS)[regions])

    def equal(self) -> Weights:
        """Equal weights of all members in all folds."""
        return ((1 / len(self.members),) * len(self.members),) * self.folds

    def combined(self, weights: Weights, chips: slice) -> NDArray[np.uint8]:
        """Compute weighted means of the members over some chips, each chip with its fold's weights: n x H x W uint8."""
        if len(self.members) == 1:
            return self.probabilities[0, chips]
        by_chip = np.array(weights, np.float32)[self.chips["fold"].to_numpy()[chips]]
        means = np.einsum("nm,mnhw->nhw", by_chip, self.probabilities[:, chips], dtype=np.float32)
        return np.asarray(np.rint(means), np.uint8)

    def histograms(self, weights: Weights) -> NDArray[np.int64]:
        """Count the valid pixels of each chip by label and level of `combined`: N x 2 (clear, cloud) x 256."""
        if weights not in self._histograms:
            counts = np.empty((len(self.chips), 2, PREDICTION_STEPS + 1), np.int64)
            for row, label in enumerate(self.labels):
                counts[row] = histogram(self.combined(weights, slice(row, row + 1))[0], label)
            self._histograms[weights] = counts
        return self._histograms[weights]


def load_held_out(
    store: ChipStore,
    labels: pd.DataFrame,
    members: Mapping[str, Path],
    tta: Tta,
    params: CalibrationParams,
    seed: int,
) -> HeldOut:
    """Read the members' predictions on the chips whose given labels they learned from in other folds.

    Args:
        store: The packed chips.
        labels: `tables.MANIFEST` or `tables.ROUND` that the members learned from.
        members: Folders of `predict_oof`, by name.
        tta: TTA policy for making masks.
        params: Number of groups and of chips.
        seed: Random seed for choosing chips.
    """
    order = tables.OOF.read(next(iter(members.values())) / "index.csv")
    places = store.index[["chip_id", "location", "scene"]].reset_index(drop=True)
    chips = labels.loc[labels["label"] == "human", ["chip_id", "verdict"]].merge(order).merge(places)
    chips = spread(chips, params.chips, seed)
    chips["group"] = groups_of(chips["location"], params.groups)
    ids = chips["chip_id"].tolist()
    probabilities = []
    for folder in members.values():
        rows = tables.OOF.read(folder / "index.csv").set_index("chip_id").loc[ids, "row"].to_numpy()
        probabilities.append(open_array(folder / f"{tta}.npy")[rows])
    folds = int(order["fold"].max()) + 1
    return HeldOut(chips.drop(columns="row"), list(members), np.stack(probabilities), store.labels(ids), folds)


def spread(chips: pd.DataFrame, number: int | None, seed: int) -> pd.DataFrame:
    """Choose at most `number` chips, spread over the scenes in proportion to their chips; sorted by id."""
    shuffled = chips.sample(frac=1, random_state=seed)
    turn = shuffled.groupby("scene").cumcount()
    chosen = shuffled.loc[turn.sort_values(kind="stable").index[:number]]
    return chosen.sort_values("chip_id", ignore_index=True)


def groups_of(locations: pd.Series, number: int) -> NDArray[np.int64]:
    """Assign chips to groups of whole locations, and thus whole scenes, with about equal numbers of chips.

    With fewer locations than groups, there are fewer groups. A single location is one group, which leaves nothing to
    choose on.
    """
    groups = np.zeros(len(locations), np.int64)
    number = min(number, locations.nunique())
    if number > 1:
        for group, (_, rows) in enumerate(GroupKFold(number).split(locations, groups=locations)):
            groups[rows] = group
    return groups
