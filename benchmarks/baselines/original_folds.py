"""The original's folds: `MultilabelStratifiedKFold` over location, year, month, hour and coverage, chips shuffled.

That class starts with `y = np.asarray(y, dtype=bool)`: of each criterion only "not zero" is left. Year and month are
never zero, codes of locations and hours hardly are: chips differ in a few patterns of five bits, and stratifying is to
deal each pattern out evenly. Scenes are ignored.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cloudcover.data.coverage import coverage_bin
from cloudcover.data.scenes import scene_of, times


def split(chips: pd.DataFrame, number: int, coverage_bins: int, seed: int) -> pd.DataFrame:
    """Split into folds as the original did; arguments and result as in `cloudcover.data.folds.split`."""
    taken = times(chips["datetime"])
    criteria = np.stack(
        [
            pd.factorize(chips["location"], sort=True)[0],
            taken.dt.year.fillna(0).to_numpy(),
            taken.dt.month.fillna(0).to_numpy(),
            taken.dt.hour.fillna(0).to_numpy(),
            coverage_bin(chips["coverage_share"].to_numpy(), coverage_bins),
        ],
        axis=1,
    )
    pattern = np.asarray(criteria, dtype=bool) @ (1 << np.arange(5))
    shuffled = np.random.default_rng(seed).permutation(len(chips))
    fold = np.empty(len(chips), np.int64)
    fold[shuffled[np.argsort(pattern[shuffled], kind="stable")]] = np.arange(len(chips)) % number
    return pd.DataFrame(
        {"chip_id": chips["chip_id"], "fold": fold, "scene": scene_of(chips["location"], chips["datetime"])}
    )
