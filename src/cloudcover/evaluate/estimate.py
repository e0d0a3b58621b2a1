"""A figure with its uncertainty."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit

CONFIDENCE = 0.95


class Estimate(BaseModel):
    """A figure with its 95 % interval; for a single group the interval has zero width and no meaning.

    Attributes:
        value: Figure over all chips.
        low: Lower bound.
        high: Upper bound.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float

    @classmethod
    def of_variance(cls, value: float, variance: float, freedom: float) -> Estimate:
        """Compute the interval of a figure from its variance, by Student's t.

        Args:
            value: The figure.
            variance: Variance of the figure.
            freedom: Degrees of freedom of the variance; 0 if the variance is unknown.
        """
        half = quantile(freedom) * math.sqrt(variance)
        return cls(value=float(value), low=float(value - half), high=float(value + half))

    @classmethod
    def of_resamples(cls, value: float, resamples: NDArray[np.float64] | pd.Series, groups: int) -> Estimate:
        """Compute the interval of a figure from its values in resamples of groups.

        Percentile intervals from few groups are too narrow (with 12 to 15 locations they cover 0.88 to 0.90 instead of
        0.95). The variance of resamples of n groups is too small by (n - 1) / n, and the spread itself is uncertain. So
        the interval uses Student's t with both corrections (Hesterberg 2015, "What Teachers Should Know About the
        Bootstrap", section 3.2).

        Args:
            value: Figure over all groups.
            resamples: Figures of the resamples.
            groups: Number of groups.
        """
        return cls.of_variance(value, float(np.var(resamples)) * widening(groups), groups - 1)

    def within(self, low: float, high: float) -> Estimate:
        """Clip the interval to the possible range of the figure."""
        return Estimate(value=self.value, low=max(self.low, low), high=min(self.high, high))

    def columns(self, name: str) -> dict[str, float]:
        """Return table columns: the value under `name`, and the bounds under `<name>_low` and `<name>_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def quantile(freedom: float) -> float:
    """Return the half-width of an interval in standard errors, by Student's t; 0 without degrees of freedom."""
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) if freedom > 0 else 0.0


def widening(groups: int) -> float:
    """Return the factor that corrects the variance over resamples of so many groups."""
    return groups / (groups - 1) if groups > 1 else 1.0
