"""A second opinion on labels: boosted trees on the colours and surroundings of a cell, instead of a network.

Trees need fewer chips than a network, make different errors, and train in seconds on a CPU; s2cloudless, the usual
baseline for Sentinel-2, is of this kind. Chips are reduced to cells, and a few cells are drawn from each chip to learn
from. Memory holds these and one batch.

Axes: N chips, B bands, S x S cells, F features.
"""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.labels.geometry import reduce
from cloudcover.labels.spectral import haze
from cloudcover.runtime.files import derive_seed

Floats = NDArray[np.float64]

LEAST_CELLS = 48
"""Minimum number of cells along a chip's side, if it has that many pixels; there are fewer than twice as many."""
CELLS_PER_CHIP = 150
CELLS_IN_ALL = 400_000
"""Maximum number of cells to learn from, per chip and in total, which bounds time and memory."""
SURROUNDINGS = (3, 9)
"""Sides of the windows that describe a cell's surroundings [cells]."""
NEIGHBOUR_FOLDS = 5
TRUST = 4
"""Power of the agreement by which a label counts."""
TREES = 50
STAGES = (1, 3, 6, 12, 25, 50)
"""Numbers of trees at which a label's learning curve is sampled."""
BATCH = 32


def one_core_each(threads: int) -> ThreadPoolExecutor:
    """Return a thread pool in which each thread's trees use one core.

    By default each thread would start as many OpenMP threads as there are cores, and these would compete. With one
    thread, the sums of a fit also do not depend on the number of cores.

    Args:
        threads: Number of threads.
    """
    return ThreadPoolExecutor(threads, initializer=threadpool_limits, initargs=(1, "openmp"))


def cells(side: int) -> int:
    """Return the number of cells along a chip's side: cells are squares of 1, 2, 4, … pixels."""
    pixels = 1
    while side // (2 * pixels) >= LEAST_CELLS:
        pixels *= 2
    return side // pixels


def describe(dn: NDArray[np.uint16], bands: list[str]) -> NDArray[np.float32]:
    """Describe each cell of some chips by its features.

    The features are, in order: reflectance of each band; each band divided by the mean of all (colour without
    brightness); haze (see `spectral.haze`); for each window of `SURROUNDINGS`, mean, standard deviation and minimum of
    the brightness and the mean of the last band; for each band, the 5th, 50th and 95th percentile of the chip, which
    indicate snow, sea and season.

    Args:
        dn: N x B x H x W uint16 [DN].
        bands: Names of the bands, in order.

    Returns:
        N x S x S x F float32 [reflectance or ratio].
    """
    number, side = len(dn), cells(min(dn.shape[2:]))
    values = reduce(dn.reshape(-1, *dn.shape[2:]), side).reshape(number, -1, side, side) / DN_PER_REFLECTANCE
    brightness = values.mean(axis=1)
    columns = [*values.swapaxes(0, 1), *(values / (brightness[:, None] + 1e-3)).swapaxes(0, 1), haze(values, bands)]
    for window in SURROUNDINGS:
        size = (0, window, window)
        mean = ndimage.uniform_filter(brightness, size, mode="nearest")
        square = ndimage.uniform_filter(brightness**2, size, mode="nearest")
        columns += [
            mean,
            np.sqrt(np.maximum(square - mean**2, 0)),
            ndimage.minimum_filter(brightness, (1, window, window), mode="nearest"),
            ndimage.uniform_filter(values[:, -1], size, mode="nearest"),
        ]
    levels = np.percentile(values.reshape(number, -1, side * side), (5, 50, 95), axis=2)
    per_chip = levels.swapaxes(1, 2).reshape(-1, number)
    columns += [np.broadcast_to(level[:, None, None], brightness.shape) for level in per_chip]
    return np.stack(columns, axis=-1).astype(np.float32)


@dataclass(frozen=True)
class Sample:
    """A sample of cells to learn from.

    Attributes:
        values: M x K x F float32, K cells of each of M chips.
        cloud: M x K bool, whether most of the cell is labelled cloud.
        known: M x K bool, whether most of the cell has a known label.
    """

    values: NDArray[np.float32]
    cloud: NDArray[np.bool_]
    known: NDArray[np.bool_]


def draw(store: ChipStore, chip_ids: list[str], seed: int) -> Sample:
    """Draw the cells of each chip that trees learn from; the draw depends only on the seed and the chip's id."""
    number = max(1, min(CELLS_PER_CHIP, CELLS_IN_ALL // max(1, len(chip_ids))))
    bands, parts = store.bands(), []
    for batch in store.batches(chip_ids, BATCH):
        dn, labels = store.chips(batch), store.labels(batch)
        values = describe(dn, bands)
        side = values.shape[1]
        flat = values.reshape(len(batch), side * side, -1)
        cloud = reduce(labels == 1, side).reshape(len(batch), -1)
        known = reduce(labels != IGNORE_INDEX, side).reshape(len(batch), -1)
        chosen = [np.random.default_rng(derive_seed(seed, "cells", c)).integers(side**2, size=number) for c in batch]
        at = np.arange(len(batch))[:, None], np.stack(chosen)
        parts.append((flat[at], cloud[at] > known[at] / 2, known[at] > 0.5))
    return Sample(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class Trees:
    """Classifiers, one per fold, each trained on the other folds.

    Wrong labels err mostly in one direction (masks that are empty over cloud), so trees that learn from all labels
    alike see too little cloud where many are wrong. Therefore a label counts by how far classifiers agree with it that
    learned from other scenes of the same folds (after Shen & Sanghavi 2019, arXiv:1810.11874, who drop the samples of
    the largest loss).

    Args:
        sample: Cells of all chips, in the order of `folds`.
        folds: Fold of each of the M chips.
        scenes: Fold of whole scenes of each chip.
        seed: Random seed for the trees.
        pool: Pool whose threads fit the classifiers, see `one_core_each`.
    """

    def __init__(
        self, sample: Sample, folds: NDArray[np.int64], scenes: NDArray[np.int64], seed: int, pool: Executor
    ) -> None:
        self.sample, self.folds, self.scenes, self.seed = sample, folds, scenes, seed
        numbers = np.unique(folds).tolist()
        self.models = dict(zip(numbers, pool.map(self._fit, numbers), strict=True))

    def _fit(self, fold: int) -> HistGradientBoostingClassifier | float:
        """Fit the classifier of a fold to the others, first to each half of their scenes and then to all of them."""
        others = np.flatnonzero(self.folds != fold)
        half = np.searchsorted(np.unique(self.scenes[others]), self.scenes[others]) % 2
        trust = np.ones(len(others))
        for part in np.unique(half):
            judged = others[half == part]
            trust[half == part] = self._agreement(self._fitted(others[half != part]), judged) ** TRUST
        return self._fitted(others, trust)

    def _fitted(self, rows: NDArray[np.int64], trust: Floats | None = None) -> HistGradientBoostingClassifier | float:
        """Fit a classifier to some chips, weighted by `trust`; a constant if they contain a single class."""
        use = self.sample.known[rows]
        values, cloud = self.sample.values[rows][use], self.sample.cloud[rows][use]
        if cloud.all() or not cloud.any():
            return float(cloud[0]) if len(cloud) else 0.5
        model = HistGradientBoostingClassifier(
            max_iter=TREES,
            learning_rate=0.15,
            max_leaf_nodes=15,
            # More cells than three chips have, so that no leaf can memorise a single wrong label.
            min_samples_leaf=max(1, min(3 * use.shape[1], len(values) // 8)),
            l2_regularization=1.0,
            early_stopping=False,
            random_state=self.seed % 2**32,
        )
        return model.fit(values, cloud, None if trust is None else np.broadcast_to(trust[:, None], use.shape)[use])

    def _agreement(self, model: HistGradientBoostingClassifier | float, rows: NDArray[np.int64]) -> Floats:
        """Average the probability that a classifier gives to the labels of some chips."""
        cloud, values = self.sample.cloud[rows], self.sample.values[rows]
        p = model if isinstance(model, float) else _probability(model, values)
        return _mean(np.where(cloud, p, 1 - p), self.sample.known[rows])

    def probabilities(self, values: NDArray[np.float32], folds: NDArray[np.int64]) -> NDArray[np.float32]:
        """Predict the probability of cloud by classifiers that were not trained on the chips' folds.

        Args:
            values: N x S x S x F, result of `describe`.
            folds: Fold of each chip.

        Returns:
            N x S x S float32 in [0, 1]; `geometry.enlarge` resamples it to pixels.
        """
        cells = np.empty(values.shape[:3], np.float32)
        for fold in np.unique(folds):
            rows, model = folds == fold, self.models[int(fold)]
            if isinstance(model, float):
                cells[rows] = model
            else:
                cells[rows] = _probability(model, values[rows])
        return cells

    def early_agreement(self, pool: Executor) -> Floats:
        """Measure how early in training each label is learned by classifiers trained on it.

        Networks and boosted trees fit right labels first and wrong ones last, if at all (Arpit et al. 2017,
        arXiv:1706.05394; Pleiss et al. 2020, arXiv:2001.10528, whose area under the margin this follows).

        Args:
            pool: Pool whose threads evaluate the classifiers.

        Returns:
            M float64 in [0, 1]: the probability of the label, averaged over the chip's known cells, the stages `STAGES`
            and the classifiers trained on the chip. Labels that are learned late have low values; 1 if no classifier
            learned anything.
        """
        total, number = np.zeros(len(self.folds)), np.zeros(len(self.folds))
        fitted = [(fold, model) for fold, model in self.models.items() if not isinstance(model, float)]
        learned = [np.flatnonzero(self.folds != fold) for fold, _ in fitted]
        for rows, agreement in zip(learned, pool.map(self._early, [m for _, m in fitted], learned), strict=True):
            total[rows] += agreement
            number[rows] += 1
        return np.asarray(np.divide(total, number, out=np.ones(len(total)), where=number > 0))

    def _early(self, model: HistGradientBoostingClassifier, rows: NDArray[np.int64]) -> Floats:
        """Average the probability that one classifier's stages give to the labels of some chips."""
        cloud, known = self.sample.cloud[rows], self.sample.known[rows]
        curve = np.zeros(cloud.shape)
        flat = self.sample.values[rows].reshape(-1, self.sample.values.shape[-1])
        for stage, p in enumerate(model.staged_predict_proba(flat), start=1):
            if stage in STAGES:
                cell = p[:, 1].reshape(cloud.shape)
                curve += np.where(cloud, cell, 1 - cell) / len(STAGES)
        return _mean(curve, known)


def _probability(model: HistGradientBoostingClassifier, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Predict the probability of cloud for features with any leading axes."""
    return np.asarray(model.predict_proba(values.reshape(-1, values.shape[-1]))[:, 1].reshape(values.shape[:-1]))


def _mean(agreement: Floats, known: NDArray[np.bool_]) -> Floats:
    """Average over the known cells of each of M chips; 1 where there are none."""
    number = known.sum(axis=1)
    return np.asarray(np.divide((agreement * known).sum(axis=1), number, out=np.ones(len(known)), where=number > 0))


class TreeCommittee:
    """Two sets of trees: one has not seen a chip's scene, the other was trained on neighbouring chips of the scene.

    Where a model without similar scenes fails (snow, sun glint), the neighbours' labels show what is cloud.

    Args:
        sample: Cells of all chips.
        folds: Fold of whole scenes of each of the N chips.
        seed: Random seed for the trees and for the folds of single chips.
        pool: Pool whose threads fit and evaluate the classifiers.
    """

    def __init__(self, sample: Sample, folds: NDArray[np.int64], seed: int, pool: Executor) -> None:
        self.folds = folds
        self.single = np.random.default_rng(derive_seed(seed, "neighbours")).permutation(len(folds)) % NEIGHBOUR_FOLDS
        self.strangers = Trees(sample, folds, folds, seed, pool)
        self.neighbours = Trees(sample, self.single, folds, seed, pool)
        self.early_agreement = self.neighbours.early_agreement(pool)

    def votes(self, dn: NDArray[np.uint16], bands: list[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Predict the probability of cloud in each cell by both sets of trees.

        Args:
            dn: N x B x H x W uint16 [DN].
            bands: Names of the bands, in order.
            rows: Positions of the N chips in `folds`.

        Returns:
            N x 2 x S x S float32 in [0, 1]: trees that have not seen the scene, then trees that have seen its other
            chips.
        """
        values = describe(dn, bands)
        strangers = self.strangers.probabilities(values, self.folds[rows])
        return np.stack([strangers, self.neighbours.probabilities(values, self.single[rows])], axis=1)
