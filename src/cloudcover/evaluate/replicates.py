"""Figures of repeated trainings, on one set or several, and what they say about the recipes.

Two models can differ although their recipes do not: the scatter between trainings of one recipe often exceeds the
difference between recipes. So the interval for a recipe needs repetitions, and their level determines the variance:

- several sets: from the figures of the sets, each the mean over its trainings. They include all variation within a set,
  that is, of trainings and locations.
- one set, trained several times: from the figures of the trainings, and from resamples of the locations, which are
  common to all trainings. Degrees of freedom are Welch's and Satterthwaite's. The result does not extend to other sets.
- one training: only from resamples of locations. This compares models, not recipes.

There is no resampling within sets: drawing sets, then trainings, then locations counts their variance twice (Davison
and Hinkley 1997, section 3.8), and detects a difference in 0 to 1 % of pairs of equal recipes instead of 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.evaluate.estimate import Estimate, quantile, widening
from cloudcover.evaluate.metrics import Statistic, global_jaccard, paired_resamples
from cloudcover.masks.overlap import Floats

CHAIN = ["set", "training"]
"""Columns of counts that identify a repetition; tables without them come from one training."""

Contrast = Mapping[str, float]
"""Weights of runs: {"final": 1, "baseline": -1} is the gain of the final run over the baseline."""


@dataclass(frozen=True)
class Replicates:
    """Figures of several runs in the same repetitions.

    Attributes:
        chains: Figures by repetition (index `CHAIN`) and run (column).
        variances: Covariance matrices of the runs' means (runs x runs) with their degrees of freedom; they add up.
        recipes: Whether trainings were repeated, so that differences apply to recipes and not only to models.
    """

    chains: pd.DataFrame
    variances: list[tuple[NDArray[np.float64], int]]
    recipes: bool

    @classmethod
    def of(
        cls,
        models: Mapping[str, pd.DataFrame],
        resamples: int,
        seed: int,
        statistic: Statistic = global_jaccard,
    ) -> Replicates:
        """Compute the figures of runs.

        Args:
            models: Tables of counts (`tables.COUNTS`) by name, with the columns `CHAIN` for repetitions.
            resamples: Number of bootstrap resamples of locations.
            seed: Random seed for the bootstrap.
            statistic: Figure; see `metrics.bootstrap`.

        Raises:
            ValueError: The runs were not evaluated on the same chips and labels, or not in the same repetitions.
        """
        tables = {name: _with_chain(table) for name, table in models.items()}
        chains = {name: dict(list(table.groupby(CHAIN))) for name, table in tables.items()}
        keys = sorted(next(iter(chains.values())))
        if other := [name for name, parts in chains.items() if sorted(parts) != keys]:
            raise ValueError(f"{', '.join(other)}: does not have the same sets and trainings as {next(iter(chains))}")
        number = 1 if len({key[0] for key in keys}) > 1 else resamples  # no resampling within several sets
        draws = [
            paired_resamples({name: parts[key] for name, parts in chains.items()}, "location", number, seed)
            for key in keys
        ]
        figures = pd.DataFrame(
            [table.iloc[0] for table in draws], index=pd.MultiIndex.from_tuples(keys, names=CHAIN)
        ).astype(float)
        by_set = figures.groupby("set").mean()
        if len(by_set) > 1:
            return cls(figures, [_of_means(by_set)], True)
        locations = next(iter(models.values()))["location"].nunique(dropna=False)
        mean = np.mean([table.iloc[1:].to_numpy() for table in draws], axis=0)
        variances = [(_covariance(mean) * widening(locations), locations - 1)]
        if len(figures) > 1:
            variances.append(_of_means(figures))
        return cls(figures, variances, len(figures) > 1)

    def estimate(self, contrast: Contrast) -> Estimate:
        """Return a weighted sum of figures, each the mean over sets and trainings, with its interval."""
        value, variance, freedom = self._moments(contrast)
        return Estimate.of_variance(value, variance, freedom)

    def figure(self, run: str) -> Estimate:
        """Return the figure of a run [0-1]."""
        return self.estimate({run: 1}).within(0, 1)

    def ratio(self, above: Contrast, below: Contrast) -> Estimate | None:
        """Return the ratio of two contrasts with Fieller's interval (1954); None if it is not determined.

        It is not determined if the interval of the denominator contains 0, and has no meaning if that interval is below
        0.
        """
        a, var_a, freedom_a = self._moments(above)
        b, var_b, freedom_b = self._moments(below)
        square = quantile(min(freedom_a, freedom_b)) ** 2
        leading = b * b - square * var_b
        if b <= 0 or leading <= 0:
            return None
        both = {run: above.get(run, 0) + below.get(run, 0) for run in {*above, *below}}
        covariance = (self._moments(both)[1] - var_a - var_b) / 2
        middle = a * b - square * covariance
        root = math.sqrt(max(0.0, middle * middle - leading * (a * a - square * var_a)))
        return Estimate(value=a / b, low=(middle - root) / leading, high=(middle + root) / leading)

    def _moments(self, contrast: Contrast) -> tuple[float, float, float]:
        """Return value, variance and degrees of freedom."""
        weights = np.array([contrast.get(str(run), 0.0) for run in self.chains.columns])
        value = float(self.chains.groupby("set").mean().mean().to_numpy() @ weights)
        parts = [(max(0.0, float(weights @ covariance @ weights)), freedom) for covariance, freedom in self.variances]
        variance = sum(part for part, _ in parts)
        spread = sum(part**2 / freedom for part, freedom in parts if freedom)
        return value, variance, variance**2 / spread if spread else 0.0


def _with_chain(counts: pd.DataFrame) -> pd.DataFrame:
    return counts if set(CHAIN) <= set(counts) else counts.assign(**dict.fromkeys(CHAIN, 0))


def _covariance(values: Floats) -> NDArray[np.float64]:
    """Return the covariance of the columns."""
    return np.atleast_2d(np.cov(values, rowvar=False, ddof=0))


def _of_means(figures: pd.DataFrame) -> tuple[NDArray[np.float64], int]:
    """Return the covariance of the means of independent rows."""
    return _covariance(figures.to_numpy()) / (len(figures) - 1), len(figures) - 1
