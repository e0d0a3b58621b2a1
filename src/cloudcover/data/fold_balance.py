"""Balance of chips across the folds, compared with the best possible split and with plain shuffles.

The module also measures how much the test part differs from the folds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cloudcover.config.sections import FoldsParams, Stratum
from cloudcover.data.folds import TEST, check_chips, group_chips, strata_of
from cloudcover.data.scenes import scene_of

STRATA: tuple[Stratum, ...] = ("location", "year", "month", "hour", "coverage")
SHUFFLES = 20

Ints = NDArray[np.int64]


def balance(folds: pd.DataFrame, chips: pd.DataFrame, params: FoldsParams, seed: int = 0) -> pd.DataFrame:
    """Measure how evenly the size of folds and each criterion are distributed.

    The measure is the share of all chips that would have to change folds for an even distribution of a criterion. It is
    the total-variation distance of each value's chips over the folds from 1 / number, averaged over the values and
    weighted by chips,

        spread = sum_v sum_k |n_vk - n_v / number| / (2 n)

    with n_vk chips of value v in fold k. 0 is even; at 1 - 1 / number, every value is in a single fold. Chips of the
    test part are excluded.

    Args:
        folds: Table by `tables.FOLDS` for the same chips.
        chips: Table of chips, see `split`.
        params: Number of folds, groups and bins.
        seed: Random seed for the shuffles.

    Returns:
        One row for size and for each criterion, stratified or not: `criterion`; `stratified`; `values`, their number;
        `one_group_share`, share of chips whose value occurs in a single group and so in a single fold; `spread_share`;
        `least_share`, a lower bound for any split into whole groups; `groups_shuffled_share` and
        `chips_shuffled_share`, means over plain shuffles of groups and of chips. A shuffle of chips is even only
        because it splits groups, which leaks. `test_difference_share` is the total-variation distance between the test
        part and the folds, from 0 (identical) to 1 (no value in common); NaN without a test part.

    Raises:
        KeyError: A chip has no fold.
    """
    chips = check_chips(chips)
    fold = folds.set_index("chip_id")["fold"].loc[chips["chip_id"]].to_numpy(np.int64)
    test = fold == TEST
    everywhere = strata_of(chips, params, STRATA)
    chips, fold = chips[~test].reset_index(drop=True), fold[~test]
    group, names = group_chips(chips, scene_of(chips["location"], chips["datetime"]), params)
    strata = strata_of(chips, params, STRATA)
    rng = np.random.default_rng(seed)
    by_group = [rng.permutation(len(names))[group] % params.number for _ in range(SHUFFLES)]
    by_chip = [rng.permutation(len(chips)) % params.number for _ in range(SHUFFLES)]
    rows = []
    for name, code in {"size": np.zeros_like(group), **strata}.items():
        single, least = _least(code, group, params.number)
        rows.append(
            {
                "criterion": name,
                "stratified": name == "size" or name in params.stratify,
                "values": len(np.unique(code)),
                "one_group_share": single,
                "spread_share": _spread(code, fold, params.number),
                "least_share": least,
                "groups_shuffled_share": float(np.mean([_spread(code, f, params.number) for f in by_group])),
                "chips_shuffled_share": float(np.mean([_spread(code, f, params.number) for f in by_chip])),
                "test_difference_share": _difference(everywhere.get(name, np.zeros_like(test, np.int64)), test),
            }
        )
    return pd.DataFrame(rows)


def _spread(value: Ints, fold: Ints, number: int) -> float:
    count = np.zeros((value.max() + 1, number))
    np.add.at(count, (value, fold), 1)
    return float(np.abs(count - count.sum(1, keepdims=True) / number).sum() / (2 * len(value)))


def _difference(value: Ints, test: NDArray[np.bool_]) -> float:
    """Return the total-variation distance between the values of the test part and those of the folds."""
    if not test.any():
        return float("nan")
    inside, outside = (np.bincount(value[part], minlength=value.max() + 1) / part.sum() for part in (test, ~test))
    return float(np.abs(inside - outside).sum() / 2)


def _least(value: Ints, group: Ints, number: int) -> tuple[float, float]:
    """Return the share of chips whose value occurs in one group, and a lower bound of `_spread` for whole groups.

    The fold with a value's largest group has at least that group's share of the value. If a value is in fewer groups
    than folds, some folds lack it.
    """
    count = sparse.coo_array((np.ones(len(value)), (value, group))).tocsr()
    chips = count.sum(axis=1)
    groups = np.diff(count.indptr)
    largest = count.max(axis=1).toarray().ravel() / chips
    least = np.maximum(np.maximum(largest, 1 - (groups - 1) / number) - 1 / number, 0)
    return float(chips[groups == 1].sum() / len(value)), float(least @ chips / len(value))
