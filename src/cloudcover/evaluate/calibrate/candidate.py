"""Candidates for making masks from the members' predictions, tried on held-out chips."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.evaluate.calibrate.held_out import HeldOut, Weights
from cloudcover.masks.decision import InferenceSettings
from cloudcover.masks.overlap import COLUMNS, confusion, jaccard_index
from cloudcover.masks.postprocess import NOTHING, Postprocess
from cloudcover.masks.temperature import levels

BATCH = 16
"""Number of chips whose masks a thread makes at a time."""


SMALL_LOSS = 0.05
"""Share of the found pixels of small clouds that post-processing may lose, because a higher Jaccard from large clouds
alone does not help users who need the small ones."""


@dataclass(frozen=True)
class InferenceCandidate:
    """Weights by fold and member, and the steps that follow; see `InferenceSettings`."""

    weights: Weights
    temperature: float = 1.0
    threshold: float = 0.5
    postprocess: Postprocess = NOTHING

    def settings(self, members: list[str], folds: list[int]) -> InferenceSettings:
        """Return the settings for the models of all folds together, each with its fold's share of the weights."""
        weights = {
            f"{member}-fold{fold}": self.weights[fold][number] / len(folds)
            for number, member in enumerate(members)
            for fold in folds
        }
        return InferenceSettings(
            weights=weights, temperature=self.temperature, threshold=self.threshold, postprocess=self.postprocess
        )


@dataclass
class Scorer:
    """Cached counts of candidates on held-out chips.

    Attributes:
        held: The predictions.
        threads: Number of threads that make masks.
    """

    held: HeldOut
    threads: int = 1
    _known: dict[InferenceCandidate, NDArray[np.int64]] = field(default_factory=dict)
    _small: dict[InferenceCandidate, NDArray[np.int64]] = field(default_factory=dict)

    def counts(self, candidate: InferenceCandidate) -> NDArray[np.int64]:
        """Count the pixels of each chip, N x 4, see `overlap.COLUMNS`."""
        if candidate not in self._known:
            thresholded = candidate.postprocess == NOTHING
            self._known[candidate] = self._levels(candidate) if thresholded else self._masks(candidate)
        return self._known[candidate]

    def _levels(self, candidate: InferenceCandidate) -> NDArray[np.int64]:
        """Without post-processing, the histograms contain all that is needed."""
        histograms = self.held.histograms(candidate.weights)
        cloud = levels(candidate.temperature) > candidate.threshold
        above, below = histograms[:, :, cloud].sum(axis=2), histograms[:, :, ~cloud].sum(axis=2)
        return np.stack([above[:, 1], above[:, 0], below[:, 1], below[:, 0]], axis=1)

    def _masks(self, candidate: InferenceCandidate) -> NDArray[np.int64]:
        table = levels(candidate.temperature)

        def of(chips: slice) -> NDArray[np.int64]:
            probabilities = table[self.held.combined(candidate.weights, chips)]
            return confusion(candidate.postprocess.masks(probabilities, candidate.threshold), self.held.labels[chips])

        with ThreadPoolExecutor(self.threads) as pool:
            return np.concatenate(list(pool.map(of, _batches(len(self.held.labels)))))

    def small(self, candidate: InferenceCandidate) -> NDArray[np.int64]:
        """Count the found and all pixels of small true clouds in each chip: N x 2, see `HeldOut.small`."""
        if candidate not in self._small:
            table = levels(candidate.temperature)

            def of(chips: slice) -> NDArray[np.int64]:
                probabilities = table[self.held.combined(candidate.weights, chips)]
                small = self.held.small[chips]
                found = small & candidate.postprocess.masks(probabilities, candidate.threshold)
                return np.stack([found.sum(axis=(1, 2)), small.sum(axis=(1, 2))], axis=1)

            with ThreadPoolExecutor(self.threads) as pool:
                self._small[candidate] = np.concatenate(list(pool.map(of, _batches(len(self.held.labels)))))
        return self._small[candidate]

    def keeps_small(self, candidate: InferenceCandidate, before: InferenceCandidate, rows: NDArray[np.bool_]) -> bool:
        """Return whether a candidate loses at most `SMALL_LOSS` of the found pixels of small clouds."""
        found, was = (int(self.small(which)[rows, 0].sum()) for which in (candidate, before))
        return found >= (1 - SMALL_LOSS) * was

    def jaccard(self, candidate: InferenceCandidate, rows: NDArray[np.bool_]) -> float:
        """Compute the global Jaccard on some chips; 1 if there is no cloud."""
        return float(jaccard_index(self.counts(candidate)[rows].sum(axis=0)))

    def nested(self, by_group: list[InferenceCandidate]) -> pd.DataFrame:
        """Count the pixels of chips, each with the candidate of its group: the chips with `overlap.COLUMNS`."""
        result = np.empty((len(self.held.chips), len(COLUMNS)), np.int64)
        for group, candidate in enumerate(by_group):
            rows = self.held.chips["group"].to_numpy() == group
            result[rows] = self.counts(candidate)[rows]
        return self.held.chips.assign(**dict(zip(COLUMNS, result.T, strict=True)))


def _batches(chips: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, chips, BATCH))
