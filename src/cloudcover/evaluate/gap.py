"""What runs gain over others, and how much of what wrong labels cost they win back."""

from __future__ import annotations

import pandas as pd

from cloudcover.evaluate.estimate import Estimate
from cloudcover.evaluate.metrics import paired_resamples

BASELINE, ORACLE = "baseline", "oracle"
"""Runs on all given labels, and on the true masks."""


def gains(
    counts: pd.DataFrame, reference: str, over: str = "run", resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Global Jaccard of each run, and what it gains over a reference.

    Intervals are of 95 %, by resampling locations; all runs are compared in the same resamples.

    Args:
        counts: `tables.COUNTS`, of one policy or of one run.
        reference: name of the run, or policy, to compare with.
        over: what is compared: `run` or `tta`.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        A row per run: its name, and for `jaccard` and `gain` the value and columns with `_low` and `_high` [0-1].
    """
    draws = _draws(counts, over, resamples, seed)
    return pd.DataFrame(
        {over: name, **_of(jaccard).columns("jaccard"), **_of(jaccard - draws[reference]).columns("gain")}
        for name, jaccard in draws.items()
    )


def closed_gap(counts: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Gains over training on all given labels (`baseline`), and the share of the gap that they close.

    The gap is what training on the true masks (`oracle`) gains.

    Args:
        counts: `tables.COUNTS` of one policy.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        `gains` with `closed_share`, `closed_share_low` and `closed_share_high` (0-1).
    """
    draws = _draws(counts, "run", resamples, seed)
    gap = draws[ORACLE] - draws[BASELINE]
    shares = [_of((jaccard - draws[BASELINE]) / gap).columns("closed_share") for _, jaccard in draws.items()]
    return pd.concat([gains(counts, BASELINE, "run", resamples, seed), pd.DataFrame(shares)], axis=1)


def _draws(counts: pd.DataFrame, over: str, resamples: int, seed: int) -> pd.DataFrame:
    parts = {str(name): part for name, part in counts.groupby(over, sort=False)}
    return paired_resamples(parts, "location", resamples, seed)


def _of(draws: pd.Series) -> Estimate:
    """The value of all data, which comes first, and the interval of the resamples."""
    return Estimate.of_resamples(draws.iloc[0], draws[1:])
