"""Figures from confusion counts: the challenge's global Jaccard, figures per group, and their uncertainty.

Every function takes a table with the columns `overlap.COLUMNS` (see `tables.COUNTS`), with one row per chip, for one
run and one TTA policy. Figures come from sums of pixels, not from means over chips or batches, so they do not depend on
the order or batch size of the prediction.

A share of 0 / 0 is 1, see `masks.overlap`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.data.coverage import NO_LABEL, coverage_bin
from cloudcover.evaluate.estimate import Estimate
from cloudcover.masks.overlap import COLUMNS, Floats, jaccard_index, share
from cloudcover.runtime.text import listed

Ints = NDArray[np.int64]
Statistic = Callable[[Ints, Ints], Floats]
"""Function that computes the figure of each resample from weights (resamples x groups: how often each group was drawn)
and sums (groups x 4: pixels)."""


def global_jaccard(weights: Ints, sums: Ints) -> Floats:
    """Compute intersection over union of all pixels, as a `Statistic`."""
    return jaccard_index(weights @ sums)


def mean_jaccard(weights: Ints, sums: Ints) -> Floats:
    """Compute the mean over groups of each group's Jaccard, as a `Statistic`."""
    return np.asarray((weights @ jaccard_index(sums)) / weights.sum(axis=1))


def jaccard(counts: pd.DataFrame) -> float:
    """Compute the global Jaccard index, the challenge's metric: sum of intersections over sum of unions.

    Raises:
        ValueError: A column is missing, a count is negative, there are no rows, or a chip occurs twice.
    """
    _check(counts, "chip_id")
    return float(global_jaccard(np.ones((1, len(counts)), np.int64), counts[list(COLUMNS)].to_numpy(np.int64))[0])


def by_group(counts: pd.DataFrame, column: str) -> pd.DataFrame:
    """Compute sums and figures for each value of a column.

    Args:
        counts: Table of counts; a chip may occur once per value of `column`.
        column: `location`, `scene`, `fold`, `run` or any other column.

    Returns:
        One row per value, sorted: the column, chips, the four sums of pixels, jaccard, precision, recall, accuracy
        (0-1).

    Raises:
        ValueError: A column is missing, a count is negative, there are no rows, or a chip occurs twice in a group.
    """
    _check(counts, column)
    groups = counts.groupby(column, sort=True, observed=True, dropna=False)
    table = groups[list(COLUMNS)].sum()
    table.insert(0, "chips", groups.size())
    tp, fp, fn, tn = (table[c].to_numpy(np.int64) for c in COLUMNS)
    table["jaccard"] = jaccard_index(table[list(COLUMNS)].to_numpy(np.int64))
    table["precision"] = share(tp, tp + fp)
    table["recall"] = share(tp, tp + fn)
    table["accuracy"] = share(tp + tn, tp + fp + fn + tn)
    return table.reset_index()


def location_mean(counts: pd.DataFrame) -> float:
    """Compute the mean of the locations' Jaccards, which weights all locations equally.

    Raises:
        ValueError: See `by_group`.
    """
    return float(by_group(counts, "location")["jaccard"].mean())


def bootstrap(
    counts: pd.DataFrame,
    group: str = "location",
    resamples: int = 1000,
    seed: int = 0,
    statistic: Statistic = global_jaccard,
) -> Estimate:
    """Compute a 95 % interval by resampling groups (cluster bootstrap, Davison and Hinkley 1997, section 3.8).

    Errors within a location are correlated, so resampling chips would understate the uncertainty several times.

    Args:
        counts: Table of counts.
        group: Column whose values are drawn with replacement, as many as there are.
        resamples: Number of resamples.
        seed: Random seed for the bootstrap.
        statistic: Figure, such as `global_jaccard` or `mean_jaccard`.

    Raises:
        ValueError: See `by_group`, or a chip occurs twice.
    """
    sums = _sums(counts, group)
    values = statistic(draw(len(sums), resamples, seed), sums.to_numpy())
    return Estimate.of_resamples(_point(statistic, sums), values, len(sums)).within(0, 1)


def paired_bootstrap(
    a: pd.DataFrame,
    b: pd.DataFrame,
    group: str = "location",
    resamples: int = 1000,
    seed: int = 0,
    statistic: Statistic = global_jaccard,
) -> Estimate:
    """Compute a 95 % interval of the difference a - b of two models on the same chips.

    Both figures of a resample come from the same groups, so the difficulty of a location cancels.

    Args:
        a: Table of counts of one model.
        b: Table of counts of the other model, for the same chips in any order.
        group: See `bootstrap`.
        resamples: See `bootstrap`.
        seed: See `bootstrap`.
        statistic: See `bootstrap`.

    Raises:
        ValueError: See `bootstrap`; or the models differ in chips, groups, or cloud and clear pixels of labels.
    """
    _check_pair(a, b, group)
    sums_a, sums_b = _sums(a, group), _sums(b, group)
    weights = draw(len(sums_a), resamples, seed)
    values = statistic(weights, sums_a.to_numpy()) - statistic(weights, sums_b.to_numpy())
    return Estimate.of_resamples(_point(statistic, sums_a) - _point(statistic, sums_b), values, len(sums_a))


def paired_resamples(
    models: Mapping[str, pd.DataFrame],
    group: str = "location",
    resamples: int = 1000,
    seed: int = 0,
    statistic: Statistic = global_jaccard,
) -> pd.DataFrame:
    """Compute a figure of several models in the same resamples of groups.

    Args:
        models: Tables of counts on the same chips, by name.
        group: See `bootstrap`.
        resamples: See `bootstrap`.
        seed: See `bootstrap`.
        statistic: See `bootstrap`.

    Returns:
        One column per model. The first row is the figure of all groups, the others are those of the resamples.

    Raises:
        ValueError: See `paired_bootstrap`.
    """
    first, *others = models.values()
    for counts in others:
        _check_pair(first, counts, group)
    sums = {name: _sums(counts, group) for name, counts in models.items()}
    weights = draw(len(next(iter(sums.values()))), resamples, seed)
    weights = np.concatenate([np.ones_like(weights[:1]), weights])
    return pd.DataFrame({name: statistic(weights, values.to_numpy()) for name, values in sums.items()})


def coverage_bins(counts: pd.DataFrame, number: int = 5) -> pd.Series:
    """Assign chips to bins by the label's share of cloud among valid pixels, for `by_group`.

    Returns:
        Ordered categories such as `0-0.2`, with the index of `counts`; the last bin includes 1. Labels without a valid
        pixel are `unknown`.

    Raises:
        ValueError: A column of counts is missing.
    """
    _check_columns(counts, COLUMNS)
    tp, fp, fn, tn = (counts[c].to_numpy(np.int64) for c in COLUMNS)
    valid = tp + fp + fn + tn
    coverage_share = np.divide(tp + fn, valid, out=np.full(len(valid), np.nan), where=valid > 0)
    edges = np.linspace(0, 1, number + 1)
    names = [f"{low:.3g}-{high:.3g}" for low, high in itertools.pairwise(edges)]
    codes = coverage_bin(coverage_share, number)
    codes[codes == NO_LABEL] = number
    return pd.Series(
        pd.Categorical.from_codes(codes, pd.Index([*names, "unknown"]), ordered=True), counts.index, name="coverage"
    )


def _sums(counts: pd.DataFrame, group: str) -> pd.DataFrame:
    """Sum pixels per group, sorted by group, as int64, so that the order of summation makes no difference."""
    _check(counts, group, ["chip_id"])
    return counts.groupby(group, sort=True, observed=True, dropna=False)[list(COLUMNS)].sum().astype("int64")


def draw(groups: int, resamples: int, seed: int) -> Ints:
    """Count how often each group is drawn in each resample of a cluster bootstrap: resamples x groups."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)


def _point(statistic: Statistic, sums: pd.DataFrame) -> float:
    return float(statistic(np.ones((1, len(sums)), np.int64), sums.to_numpy())[0])


def _check_columns(counts: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [c for c in columns if c not in counts]
    if missing:
        raise ValueError(f"the counts lack the columns {missing}; they have {list(counts)}")


def _check(counts: pd.DataFrame, column: str, key: list[str] | None = None) -> None:
    _check_columns(counts, ("chip_id", column, *COLUMNS))
    if counts.empty:
        raise ValueError("the table of counts is empty: no chip was evaluated")
    if (counts[list(COLUMNS)] < 0).to_numpy().any():
        raise ValueError("the counts contain negative numbers")
    _check_once(counts, key or ["chip_id", column])


def _check_once(counts: pd.DataFrame, key: list[str]) -> None:
    twice = counts.loc[counts.duplicated(key), "chip_id"]
    if len(twice):
        raise ValueError(f"{len(twice)} rows repeat a chip ({listed(twice)}); choose one run and one TTA policy")


def _check_pair(a: pd.DataFrame, b: pd.DataFrame, group: str) -> None:
    for frame in (a, b):
        _check(frame, group, ["chip_id"])
    a, b = a.set_index("chip_id"), b.set_index("chip_id")
    if len(other := a.index.symmetric_difference(b.index)):
        raise ValueError(f"the models were not evaluated on the same chips: {len(other)} differ ({listed(other)})")
    b = b.loc[a.index]
    same = (a[group].astype(str) == b[group].astype(str)) & (
        a["tp_pixels"] + a["fn_pixels"] == b["tp_pixels"] + b["fn_pixels"]
    )
    same &= a["fp_pixels"] + a["tn_pixels"] == b["fp_pixels"] + b["tn_pixels"]
    if len(other := a.index[~same.to_numpy()]):
        raise ValueError(
            f"the models were not evaluated on the same labels and {group}s: {len(other)} chips differ "
            f"({listed(other)})"
        )
