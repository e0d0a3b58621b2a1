"""What runs gain over others, and how much of what wrong labels cost they win back."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from cloudcover.evaluate.estimate import Estimate
from cloudcover.evaluate.replicates import Replicates

BASELINE, ORACLE = "baseline", "oracle"
"""Runs on all given labels, and on the true masks."""
GAP = {ORACLE: 1.0, BASELINE: -1.0}
UNDETERMINED = Estimate(value=math.nan, low=math.nan, high=math.nan)


def replicates(counts: pd.DataFrame, over: str = "run", resamples: int = 1000, seed: int = 0) -> Replicates:
    """Measure what a table of counts holds; see `Replicates.of`.

    Args:
        counts: `tables.COUNTS`, of one policy or of one run, with the columns of `replicates.CHAIN` where trainings
            were repeated.
        over: what is compared: `run` or `tta`.
        resamples: of locations.
        seed: of the resamples.
    """
    return Replicates.of({str(name): part for name, part in counts.groupby(over, sort=False)}, resamples, seed)


def gains(found: Replicates, reference: str, over: str = "run") -> pd.DataFrame:
    """Global Jaccard of each run, and what it gains over a reference.

    Args:
        found: from `replicates`.
        reference: name of the run, or policy, to compare with.
        over: name of the first column.

    Returns:
        A row per run: its name, for `jaccard` and `gain` the value and columns with `_low` and `_high` [0-1], and
        `difference_column`: whether the interval of the gain leaves out 0.
    """
    rows: list[dict[str, Any]] = []
    for name in map(str, found.chains.columns):
        gain = found.estimate(difference(name, reference))
        row = {over: name, **found.figure(name).columns("jaccard"), **gain.columns("gain")}
        rows.append(row | {difference_column(found): differs(gain)})
    return pd.DataFrame(rows)


def closed_gap(found: Replicates) -> pd.DataFrame:
    """Gains over training on all given labels (`baseline`), and the share of the gap that they close.

    The gap is what training on the true masks (`oracle`) gains.

    Args:
        found: from `replicates`.

    Returns:
        `gains` with `closed_share`, `closed_share_low` and `closed_share_high` (0-1); NaN where the share is not
        determined, see `Replicates.ratio`.
    """
    table = gains(found, BASELINE)
    shares = [found.ratio(difference(run, BASELINE), GAP) or UNDETERMINED for run in table["run"]]
    return pd.concat([table, pd.DataFrame([share.columns("closed_share") for share in shares])], axis=1)


def closed_share(found: Replicates, run: str) -> dict[str, float]:
    """Gain of a run, the gap, and the share of it that is closed, if that is determined; each with its interval."""
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
    """Return whether an interval leaves out 0."""
    return estimate.low > 0 or estimate.high < 0


def difference_column(found: Replicates) -> str:
    """Name what is said to differ: recipes only where their trainings were repeated, otherwise two models."""
    return "differs" if found.recipes else "models_differ"
