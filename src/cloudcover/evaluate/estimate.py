"""A figure with its uncertainty."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Estimate(BaseModel):
    """A figure and its 95 % interval by resampling groups; of a single group the interval has no width, and no meaning.

    Attributes:
        value: the figure of all chips.
        low: 2.5th percentile of the resamples.
        high: 97.5th percentile of the resamples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float

    @classmethod
    def of_resamples(cls, value: float, resamples: NDArray[np.float64] | pd.Series) -> Estimate:
        """The percentile interval of a figure from its values in resamples of groups."""
        low, high = np.percentile(resamples, [2.5, 97.5])
        return cls(value=float(value), low=float(low), high=float(high))

    def columns(self, name: str) -> dict[str, float]:
        """For a row of a table: the value under `name`, and `<name>_low` and `<name>_high`."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}
