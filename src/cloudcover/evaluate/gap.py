"""Gains of runs over others, and the share of the cost of wrong labels that they recover."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from cloudcover.evaluate.estimate import Estimate
from cloudcover.evaluate.replicates import Replicates

BASELINE, ORACLE = "baseline", "oracle"
"""Runs that learn from all given labels, and from the true masks."""
GAP = {ORACLE: 1.0, BASELINE: -1.0}
UNDETERMINED = Estimate(value=math.nan, low=math.nan, high=math.nan)


def replicates(counts: pd.DataFrame, over: str = "run", resamples: int = 1000, seed: int = 0) -> Replicates:
    """Compute the figures in a table of counts; see `Replicates.of`.

    Args:
        counts: `tables.COUNTS` of one policy or of one run, with the columns `replicates.CHAIN` for repeated trainings.
        over: Column to compare by: `run` or `tta`.
        resamples: Number of bootstrap resamples of locations.
        seed: Random seed for the bootstrap.
    """
    return Replicates.of({str(name): part for name, part in counts.groupby(over, sort=False)}, resamples, seed)


def gains(found: Replicates, reference: str, over: str = "run") -> pd.DataFrame:
    """Compute the global Jaccard of each run and its gain over a reference.

    Args:
        found: Result of `replicates`.
        reference: Name of the run or policy to compare with.
        over: Name of the first column.

    Returns:
        A row per run: its name, for `jaccard` and `gain` the value and columns with `_low` and `_high` [0-1], and
        `difference_column`: whether the interval of the gain excludes 0.
    """
    rows: list[dict[str, Any]] = []
    for name in map(str, found.chains.columns):
        gain = found.estimate(difference(name, reference))
        row = {over: name, **found.figure(name).columns("jaccard"), **gain.columns("gain")}
        rows.append(row | {difference_column(found): differs(gain)})
    return pd.DataFrame(rows)


def closed_gap(found: Replicates) -> pd.DataFrame:
    """Compute gains over training on all given labels (`baseline`), and the share of the gap that they close.

    The gap is the gain of training on the true masks (`oracle`).

    Args:
        found: Result of `replicates`.

    Returns:
        `gains` with `closed_share`, `closed_share_low` and `closed_share_high` (0-1); NaN where the share is not
        determined, see `Replicates.ratio`.
    """
    table = gains(found, BASELINE)
    shares = [found.ratio(difference(run, BASELINE), GAP) or UNDETERMINED for run in table["run"]]
    return pd.concat([table, pd.DataFrame([share.columns("closed_share") for share in shares])], axis=1)


def closed_share(found: Replicates, run: str) -> dict[str, float]:
    """Return a run's gain, the gap, and the closed share of it if that is determined, each with its interval."""
    gain, gap = difference(run, BASELINE), GAP
    share = found.ratio(gain, gap)
    return {
        **found.estimate(gain).columns("gain"),
        **found.estimate(gap).columns("gap"),
        **(share.columns("closed_share") if share else {}),
    }


def difference(run: str, other: str) -> dict[str, float]:
    """Return the contrast `run` - `other`."""
    return {run: 1.0, other: -1.0} if run != other else {run: 0.0}


def differs(estimate: Estimate) -> bool:
    """Return whether an interval excludes 0."""
    return estimate.low > 0 or estimate.high < 0


def difference_column(found: Replicates) -> str:
    """Return the column name for differences: they apply to recipes only if trainings were repeated."""
    return "differs" if found.recipes else "models_differ"
