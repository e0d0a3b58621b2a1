"""Split into test part and folds: groups of chips stay whole, and several criteria are balanced at once.

The test part is a set of whole locations that no training, verdict or choice depends on. All other chips are split into
folds. A fold is a set of whole groups (scenes by default), because chips of one scene share weather, light and ground:
a model validated on a scene that it has seen looks better than it is. The trade-off is that a criterion can only be
balanced if its values occur in several groups. `fold_balance` reports the lower bound (`least_share`) and the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from cloudcover.config.sections import FoldsParams, Stratum
from cloudcover.data import tables
from cloudcover.data.coverage import coverage_bin
from cloudcover.data.scenes import scene_of, times
from cloudcover.runtime.text import listed

TEST = -1
"""Fold number of the test part."""

COLUMNS = ("chip_id", "location", "datetime", "coverage_share")

# Restarts x groups. A set with more groups than this is searched only once and without swaps: swaps cost the square of
# the groups, and with so many groups each is small enough for moves to balance.
EFFORT = 4096
MOST_RESTARTS = 40
# Changes are compared to this many decimals, so that rounding, which differs between processors, never breaks a tie.
DECIMALS = 9

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LeakError(ValueError):
    """Unreliable folds: a group is in two of them, one is empty, or the chips are not those of the set."""


def split(chips: pd.DataFrame, params: FoldsParams, seed: int) -> pd.DataFrame:
    """Assign each chip to the test part or to a fold, whole locations and whole groups at a time.

    The folds depend only on chips, parameters and seed, not on the order of the rows.

    Args:
        chips: Table with the columns chip_id, location, datetime (ISO 8601, "" = unknown) and coverage_share (share of
            cloud in the label, 0-1; NaN = no usable label, which is balanced as a separate value).
        params: Share of the test part, number of folds, what is never split, what is stratified.
        seed: Random seed for the restarts.

    Returns:
        Table by `tables.FOLDS`, rows as in `chips`; folds are numbered from 0, and `TEST` marks the test part.

    Raises:
        ValueError: There are fewer groups than folds, only one location for a test part, a missing column, a duplicate
            chip id, a datetime that is not ISO 8601, or a coverage outside 0-1.
    """
    chips = check_chips(chips)
    fold = np.full(len(chips), TEST)
    rest = np.flatnonzero(~_test_part(chips, params, seed))
    fold[rest] = _folds_of(chips.iloc[rest].reset_index(drop=True), params, seed)
    scene = scene_of(chips["location"], chips["datetime"])
    return tables.FOLDS.check(pd.DataFrame({"chip_id": chips["chip_id"], "fold": fold, "scene": scene}), "split")


def _test_part(chips: pd.DataFrame, params: FoldsParams, seed: int) -> NDArray[np.bool_]:
    """Select the chips of the test part: the locations with the most representative chips for the given share."""
    if not params.test_share:
        return np.zeros(len(chips), np.bool_)
    names, location = np.unique(chips["location"].to_numpy(dtype=str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"all {len(chips)} chips are of the location {names[0]!r}, but the test part needs a location that "
            "nothing learns from: set folds.test_share to 0, or add data of other locations"
        )
    strata = strata_of(chips, params, [stratum for stratum in params.stratify if stratum != "location"])
    shares = np.array([1 - params.test_share, params.test_share])
    imbalance = _Imbalance.of(location.astype(np.int64), strata, shares)
    part = _search(imbalance, seed)
    if len(set(part.tolist())) < 2:  # a share smaller than every location, or larger than all but one
        alone = [(np.arange(len(names)) == name).astype(np.int64) ^ part for name in range(len(names))]
        part = min(alone, key=lambda parts: round(imbalance.value(parts), DECIMALS))
    return np.asarray(part[location] == 1)


def _folds_of(chips: pd.DataFrame, params: FoldsParams, seed: int) -> Ints:
    """Assign a fold to each chip outside the test part."""
    scene = scene_of(chips["location"], chips["datetime"])
    group, names = group_chips(chips, scene, params)
    if len(names) < params.number:
        raise ValueError(_too_few(chips, scene, len(names), params))
    shares = np.full(params.number, 1 / params.number)
    return _search(_Imbalance.of(group, strata_of(chips, params, params.stratify), shares), seed)[group]


def check(folds: pd.DataFrame, chips: pd.DataFrame, params: FoldsParams) -> None:
    """Refuse folds that leak or do not match the chips.

    Args:
        folds: Table by `tables.FOLDS`.
        chips: Table of chips, see `split`; groups are recomputed from it and not taken from `folds`.
        params: Number of folds, and what must not be split.

    Raises:
        LeakError: Chips are missing or unknown, have another scene, a fold is empty or out of range, or a group is in
            two folds. The message names chips or groups.
        tables.TableError: `folds` violates its schema.
    """
    folds = tables.FOLDS.check(folds, "folds").set_index("chip_id")
    chips = check_chips(chips).set_index("chip_id", drop=False)
    missing, extra = chips.index.difference(folds.index), folds.index.difference(chips.index)
    if len(missing) or len(extra):
        raise LeakError(
            f"the folds do not match these chips: {len(missing)} have no fold{_shown(missing)}, "
            f"{len(extra)} are unknown{_shown(extra)}; make the folds again"
        )
    folds = folds.loc[chips.index]
    scene = scene_of(chips["location"], chips["datetime"])
    other = chips.index[(folds["scene"] != scene).to_numpy()]
    if len(other):
        raise LeakError(
            f"{len(other)} chips have another scene in the folds than in the set{_shown(other)}; make the folds again"
        )
    test = folds["fold"] == TEST
    if test.any() != bool(params.test_share):
        raise LeakError(
            f"{test.sum()} chips are in the test part, but folds.test_share is {params.test_share}; "
            "make the folds again"
        )
    parts = test.groupby(chips["location"].to_numpy()).nunique()
    if len(leaks := parts.index[parts > 1]):
        raise LeakError(
            f"{len(leaks)} locations are in the test part and in folds{_shown(leaks)}; make the folds again"
        )
    scene = scene.set_axis(chips.index)[~test]
    folds, chips = folds[~test], chips[~test]
    numbers = set(folds["fold"])
    if empty := sorted(set(range(params.number)) - numbers):
        raise LeakError(f"folds {empty} of {params.number} are empty; make the folds again")
    if wrong := sorted(numbers - set(range(params.number))):
        raise LeakError(f"there are folds {wrong}, but folds.number is {params.number}; make the folds again")
    if params.group != "none":
        group = (scene if params.group == "scene" else chips["location"]).rename("group")
        spread = folds["fold"].groupby(group.to_numpy()).nunique()
        leaks = spread.index[spread > 1]
        if len(leaks):
            raise LeakError(
                f"{len(leaks)} {params.group}s are in more than one fold{_shown(leaks)}; make the folds again"
            )


# --- chips, groups and strata ---------------------------------------------------------------------------------------


def check_chips(chips: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that folds depend on; raise `ValueError` for chips that `split` refuses."""
    missing = [c for c in COLUMNS if c not in chips]
    if missing:
        raise ValueError(f"chips lack the columns {missing}; expected {list(COLUMNS)}")
    if chips.empty:
        raise ValueError("there are no chips to split into folds")
    chips = chips[list(COLUMNS)].reset_index(drop=True).astype({"coverage_share": "float64"})
    twice = chips["chip_id"][chips["chip_id"].duplicated()]
    if len(twice):
        raise ValueError(f"{len(twice)} chip ids occur twice{_shown(twice)}")
    wrong = chips["chip_id"][~(chips["coverage_share"].between(0, 1) | chips["coverage_share"].isna())]
    if len(wrong):
        raise ValueError(f"coverage_share of {len(wrong)} chips is outside 0-1{_shown(wrong)}")
    chips["location"] = chips["location"].fillna("").astype(str)
    return chips


def group_chips(chips: pd.DataFrame, scene: pd.Series, params: FoldsParams) -> tuple[Ints, list[str]]:
    """Return the group number of each chip and the groups' names, sorted so that the order of rows does not matter."""
    of = {"scene": scene, "location": chips["location"], "none": chips["chip_id"]}[params.group]
    names, group = np.unique(of.to_numpy(dtype=str), return_inverse=True)
    return group.astype(np.int64), names.tolist()


def strata_of(chips: pd.DataFrame, params: FoldsParams, wanted: tuple[Stratum, ...] | list[Stratum]) -> dict[str, Ints]:
    """Return the value number of each chip per criterion; an unknown datetime or coverage is a separate value."""
    taken = times(chips["datetime"])
    values = {
        "location": chips["location"].to_numpy(dtype=str),
        "year": taken.dt.year.fillna(-1).to_numpy(),
        "month": taken.dt.month.fillna(-1).to_numpy(),
        "hour": taken.dt.hour.fillna(-1).to_numpy(),
        "coverage": coverage_bin(chips["coverage_share"].to_numpy(np.float64), params.coverage_bins),
    }
    return {name: np.unique(values[name], return_inverse=True)[1].astype(np.int64) for name in wanted}


def _too_few(chips: pd.DataFrame, scene: pd.Series, found: int, params: FoldsParams) -> str:
    options = []
    if found >= 2:
        options.append(f"set folds.number to {found} or less")
    if params.group == "location" and scene.nunique() >= params.number:
        options.append("set folds.group to scene")
    if params.group != "none" and len(chips) >= params.number:
        options.append("set folds.group to none, which allows chips of one scene in both training and validation")
    what = {"scene": "scenes", "location": "locations", "none": "chips"}[params.group]
    return f"{params.number} folds need at least {params.number} {what}, but there are {found}: " + (
        "; or ".join([*options, "add data"])
    )


def _shown(names: pd.Index | pd.Series) -> str:
    return f" ({listed(names)})" if len(names) else ""


# --- the search -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Imbalance:
    """The objective of the search: a weighted sum of squares that is quadratic in the assignment.

    For each criterion, Pearson's chi-square of the table value x fold against even counts: sum_v sum_k (n_vk - n_v
    s_k)² folds / n_v, where s_k is the share of fold k, equal for all folds except in the choice of the test part. Size
    is a criterion with one value. It has the weight of all others together, because folds of unequal size also make
    every criterion uneven.

    Attributes:
        counts: Number of chips of each value in each group, groups x values.
        weight: Weight of the squares of each value.
        weighted: Counts times weight.
        target: Number of chips of each value that each fold should have, folds x values.
        square: Sum of weighted squares per group, large for large groups and for groups with rare values.
        folds: Number of folds.
    """

    counts: sparse.csr_array
    weight: Floats
    weighted: sparse.csr_array
    target: Floats
    square: Floats
    folds: int

    @classmethod
    def of(cls, group: Ints, strata: dict[str, Ints], shares: Floats) -> _Imbalance:
        columns, weights, start = [np.zeros_like(group)], [np.array([float(max(len(strata), 1))])], 1
        for value in strata.values():
            columns.append(value + start)
            weights.append(np.ones(value.max() + 1))
            start += len(weights[-1])
        entries = (np.ones(len(group) * len(columns)), (np.tile(group, len(columns)), np.concatenate(columns)))
        counts = sparse.coo_array(entries).tocsr()
        total, folds = counts.sum(axis=0), len(shares)
        weight = np.concatenate(weights) * folds / total
        weighted = counts.copy()
        weighted.data *= weight[counts.indices]
        return cls(counts, weight, weighted, np.outer(shares, total), counts.multiply(weighted).sum(axis=1), folds)

    def excess(self, fold: Ints) -> Floats:
        """Return the chips of each value above the target: folds x values."""
        member = sparse.coo_array((np.ones(len(fold)), (fold, np.arange(len(fold)))), shape=(self.folds, len(fold)))
        return np.asarray((member.tocsr() @ self.counts).toarray() - self.target)

    def value(self, fold: Ints) -> float:
        """Return the imbalance of an assignment."""
        return float((np.square(self.excess(fold)) @ self.weight).sum())

    def row(self, group: int) -> tuple[NDArray[np.int32], Floats, Floats]:
        """Return the values of a group, their counts, and their weighted counts."""
        part = slice(self.counts.indptr[group], self.counts.indptr[group + 1])
        return self.counts.indices[part], self.counts.data[part], self.weighted.data[part]


def _search(imbalance: _Imbalance, seed: int) -> Ints:
    """Assign groups to folds: the best of several restarts of a greedy assignment and a local search."""
    rng = np.random.default_rng(seed)
    groups = imbalance.counts.shape[0]
    best, least = np.empty(0, np.int64), np.inf
    for restart in range(max(1, min(MOST_RESTARTS, EFFORT // groups))):
        # The first order is strictly by size and rarity; the others are random perturbations of it.
        order = np.argsort(-imbalance.square * np.exp(rng.normal(0, 0.5 * min(restart, 1), groups)), kind="stable")
        fold = _improve(imbalance, _greedy(imbalance, order), rng)
        value = round(imbalance.value(fold), DECIMALS)
        if value < least:
            best, least = fold, value
    return best


def _greedy(imbalance: _Imbalance, order: NDArray[np.intp]) -> Ints:
    """Assign groups one after another to the fold whose cost they increase least.

    No fold stays empty, here or in `_improve`: adding to a fuller fold costs more, so an empty fold is cheapest.
    """
    fold = np.zeros(len(order), np.int64)
    excess = -imbalance.target
    for group in order:
        values, count, weighted = imbalance.row(group)
        k = int((excess[:, values] @ weighted).round(DECIMALS).argmin())
        fold[group] = k
        excess[k, values] += count
    return fold


def _improve(imbalance: _Imbalance, fold: Ints, rng: np.random.Generator) -> Ints:
    """Move a group, or swap two, as long as that reduces the imbalance.

    With p = weighted @ excess.T (groups x folds), half the change is q_g + p_gb - p_ga for a move of g from a to b, and
    q_g + q_h - 2 m_gh + (p_ha - p_ga) - (p_hb - p_gb) for a swap with h, where q are the squares and m the products of
    rows. So all candidates of a group are compared in a few array operations.
    """
    fold = fold.copy()
    square, groups = imbalance.square, len(fold)
    product = np.asarray(imbalance.weighted @ imbalance.excess(fold).T)
    everyone, swaps = np.arange(groups), groups <= EFFORT
    improved = True
    while improved:
        improved = False
        for g in rng.permutation(groups):
            a = fold[g]
            mine = _products(imbalance, g) if swaps else None
            move = (square[g] + product[g] - product[g, a]).round(DECIMALS)
            move[a] = 0
            b = int(move.argmin())
            least, partner = move[b], None
            if mine is not None:
                swap = square[g] + square - 2 * mine + (product[:, a] - product[g, a])
                swap = (swap - (product[everyone, fold] - product[g, fold])).round(DECIMALS)
                swap[fold == a] = 0
                h = int(swap.argmin())
                if swap[h] < least:
                    least, b, partner = swap[h], int(fold[h]), h
            if least < 0:
                change = -(_products(imbalance, g) if mine is None else mine)
                if partner is not None:
                    change += _products(imbalance, partner)
                    fold[partner] = a
                fold[g] = b
                product[:, a] += change
                product[:, b] -= change
                improved = True
    return fold


def _products(imbalance: _Imbalance, group: int) -> Floats:
    """Return the weighted product of a group's row with every group's."""
    values, count, _ = imbalance.row(group)
    row = np.zeros(imbalance.counts.shape[1])
    row[values] = count
    return np.asarray(imbalance.weighted @ row)
