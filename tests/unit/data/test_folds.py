"""Scenes, the split into folds, its leak check and its measure of balance."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcover.config.sections import FoldsParams
from cloudcover.data import coverage, fold_balance, folds, tables
from cloudcover.data.folds import LeakError
from cloudcover.data.scenes import scene_of, times


def make_chips(scenes: int = 24, locations: int = 8, chips_per_scene: int = 10, seed: int = 0) -> pd.DataFrame:
    """Scenes dealt to locations in turn, with drawn dates and coverage."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(scenes), chips_per_scene)
    taken = pd.Timestamp("2018-03-01T00:00:00") + pd.to_timedelta(rng.integers(0, 900 * 24, scenes), unit="h")
    return pd.DataFrame(
        {
            "chip_id": [f"c{i:04d}" for i in range(len(scene))],
            "location": [f"place{s % locations}" for s in scene],
            "datetime": [taken[s].isoformat() + "Z" for s in scene],
            "coverage_share": rng.beta(0.5, 0.4, len(scene)),
        }
    )


def make_folds(chips: pd.DataFrame, fold: list[int]) -> pd.DataFrame:
    return tables.FOLDS.check(
        pd.DataFrame(
            {"chip_id": chips["chip_id"], "fold": fold, "scene": scene_of(chips["location"], chips["datetime"])}
        ),
        "test",
    )


# --- scenes ---------------------------------------------------------------------------------------------------------


def test_spellings_of_one_instant_are_one_scene():
    text = pd.Series(
        ["2020-04-29T08:20:47Z", "2020-04-29T08:20:47+00:00", "2020-04-29 08:20:47", "2020-04-29T10:20:47+02:00"]
    )
    scene = scene_of(pd.Series(["A"] * 4), text)
    assert set(scene) == {"A@2020-04-29T08:20:47Z"}


def test_chips_without_datetime_are_one_scene_per_location():
    scene = scene_of(pd.Series(["A", "A", "B", "A"]), pd.Series(["", None, " ", "2020-04-29T08:20:47Z"]))
    assert list(scene) == ["A@undated", "A@undated", "B@undated", "A@2020-04-29T08:20:47Z"]


def test_scene_keeps_the_index():
    scene = scene_of(pd.Series(["A", "B"], index=[7, 3]), pd.Series(["", ""], index=[7, 3]))
    assert list(scene.index) == [7, 3]


def test_a_datetime_that_is_none_is_refused_with_its_row():
    with pytest.raises(ValueError, match=r"1 datetimes are not ISO 8601 \('29.04.2020'\)"):
        times(pd.Series(["2020-04-29", "29.04.2020", ""]))


# --- split ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["scene", "location", "none"])
@pytest.mark.parametrize("number", [2, 3, 5])
def test_split_passes_its_own_leak_check(group: str, number: int):
    chips, params = make_chips(), FoldsParams(test_share=0, number=number, group=group)
    table = folds.split(chips, params, seed=0)
    folds.check(table, chips, params)
    assert list(table["chip_id"]) == list(chips["chip_id"])
    assert set(table["fold"]) == set(range(number))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    data=st.lists(
        st.tuples(
            st.sampled_from("ABCD"),
            st.sampled_from(["", "2019-01-02T10:00:00Z", "2020-07-03T11:00:00Z", "2020-07-03T23:59:59Z"]),
            st.one_of(st.floats(0, 1), st.just(np.nan)),
        ),
        min_size=6,
        max_size=40,
    ),
    number=st.integers(2, 5),
    group=st.sampled_from(["scene", "location", "none"]),
)
def test_any_set_is_split_without_leak_or_refused_with_a_remedy(data: list, number: int, group: str):
    chips = pd.DataFrame(data, columns=["location", "datetime", "coverage_share"])
    chips.insert(0, "chip_id", [f"c{i}" for i in range(len(chips))])
    params = FoldsParams(test_share=0, number=number, group=group)
    groups = {"location": chips["location"], "scene": chips["location"] + chips["datetime"], "none": chips["chip_id"]}
    if groups[group].nunique() < number:
        with pytest.raises(ValueError, match=r"folds need at least .* (set|add)"):
            folds.split(chips, params, seed=1)
        return
    table = folds.split(chips, params, seed=1)
    folds.check(table, chips, params)
    assert fold_balance.balance(table, chips, params)["spread_share"].between(0, 1 - 1 / number + 1e-9).all()


def test_split_depends_on_the_seed_and_not_on_the_order_of_rows():
    chips, params = make_chips(scenes=40), FoldsParams(test_share=0, number=4)
    table = folds.split(chips, params, seed=3)
    shuffled = chips.sample(frac=1, random_state=0)
    again = folds.split(shuffled, params, seed=3).set_index("chip_id").loc[chips["chip_id"]].reset_index()
    pd.testing.assert_frame_equal(table, again)
    others = [folds.split(chips, params, seed=s)["fold"].tolist() for s in range(4, 8)]
    assert any(other != table["fold"].tolist() for other in others)


def test_split_finds_the_optimum_of_a_small_set():
    chips, params = make_chips(scenes=9, locations=4, chips_per_scene=4, seed=5), FoldsParams(test_share=0, number=2)
    scene = scene_of(chips["location"], chips["datetime"]).factorize(sort=True)[0].astype(np.int64)
    imbalance = folds._Imbalance.of(scene, folds.strata_of(chips, params, params.stratify), np.full(2, 1 / 2))
    every = [imbalance.value(np.array(k)) for k in itertools.product([0, 1], repeat=9) if 0 < sum(k) < 9]
    table = folds.split(chips, params, seed=0)
    found = table["fold"].groupby(scene).first().to_numpy()
    assert imbalance.value(found) == pytest.approx(min(every))


@pytest.mark.parametrize("seed", range(5))
def test_no_move_and_no_swap_can_improve_the_result_of_the_search(seed: int):
    chips, params = (
        make_chips(scenes=14, locations=6, chips_per_scene=5, seed=seed),
        FoldsParams(test_share=0, number=3),
    )
    scene = scene_of(chips["location"], chips["datetime"]).factorize(sort=True)[0].astype(np.int64)
    imbalance = folds._Imbalance.of(scene, folds.strata_of(chips, params, params.stratify), np.full(3, 1 / 3))
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 3, 14)
    fold = folds._improve(imbalance, start, rng)
    least = imbalance.value(fold)
    assert least < imbalance.value(start)
    for g in range(14):
        for changed in [*([g, k] for k in range(3)), *([g, fold[h], h, fold[g]] for h in range(14) if h != g)]:
            other = fold.copy()
            other[changed[::2]] = changed[1::2]
            assert imbalance.value(other) >= least - 1e-6


def test_split_is_more_even_than_a_shuffle_of_scenes_in_every_criterion():
    chips, params = make_chips(scenes=60, locations=20, seed=1), FoldsParams(test_share=0, number=5)
    balance = fold_balance.balance(folds.split(chips, params, seed=0), chips, params).set_index("criterion")
    assert (balance["spread_share"] <= balance["groups_shuffled_share"]).all()
    assert balance.loc["month", "spread_share"] < 0.6 * balance.loc["month", "groups_shuffled_share"]
    assert (balance["spread_share"] >= balance["least_share"] - 1e-12).all()


def test_splitting_chips_balances_all_criteria_at_once():
    chips, params = make_chips(), FoldsParams(test_share=0, number=3, group="none")
    balance = fold_balance.balance(folds.split(chips, params, seed=0), chips, params).set_index("criterion")
    assert (balance["spread_share"] < 0.35 * balance["chips_shuffled_share"])[1:].all()


def test_only_what_is_asked_for_is_stratified():
    chips = make_chips(scenes=60, locations=20, seed=2)
    only = FoldsParams(test_share=0, number=3, stratify=["month"])
    balance = fold_balance.balance(folds.split(chips, only, seed=0), chips, only).set_index("criterion")
    everything = FoldsParams(test_share=0, number=3)
    others = fold_balance.balance(folds.split(chips, everything, seed=0), chips, everything).set_index("criterion")
    assert balance.index[balance["stratified"]].tolist() == ["size", "month"]
    assert balance.loc["month", "spread_share"] <= others.loc["month", "spread_share"]
    assert balance.loc["hour", "spread_share"] > others.loc["hour", "spread_share"]


def test_without_strata_the_size_is_even():
    chips, params = make_chips(scenes=12), FoldsParams(test_share=0, number=3, stratify=[])
    assert set(folds.split(chips, params, seed=0)["fold"].value_counts()) == {40}


def test_rejected_labels_are_spread_evenly():
    chips, params = make_chips(scenes=30), FoldsParams(test_share=0, number=3, stratify=["coverage"])
    chips["coverage_share"] = np.where(np.arange(300) // 10 % 5 == 0, np.nan, 0.5)
    table = folds.split(chips, params, seed=0)
    assert set(table["fold"][chips["coverage_share"].isna()].value_counts()) == {20}


def test_chips_without_any_label_or_datetime_are_split():
    chips, params = make_chips(), FoldsParams(test_share=0, number=3)
    chips = chips.assign(datetime="", coverage_share=np.nan)
    folds.check(folds.split(chips, params, seed=0), chips, params)


def test_every_fold_gets_a_group_when_there_are_as_many_groups_as_folds():
    chips, params = make_chips(scenes=3, locations=3), FoldsParams(test_share=0, number=3)
    chips = chips.iloc[[*range(10), 10, 20]]
    assert set(folds.split(chips, params, seed=0)["fold"]) == {0, 1, 2}


def test_many_groups_are_balanced_by_moves_alone(monkeypatch: pytest.MonkeyPatch):
    chips, params = make_chips(scenes=60, locations=20, seed=1), FoldsParams(test_share=0, number=5)
    monkeypatch.setattr(folds, "EFFORT", 59)
    table = folds.split(chips, params, seed=0)
    folds.check(table, chips, params)
    balance = fold_balance.balance(table, chips, params)
    assert (balance["spread_share"] <= balance["groups_shuffled_share"]).all()


@pytest.mark.parametrize(
    ("group", "scenes", "remedy"),
    [
        ("scene", 2, "5 folds need at least 5 scenes, but there are 2: set .*number to 2 or less; or .*group to none"),
        ("location", 8, "5 folds need at least 5 locations, but there are 2: .*; or set folds.group to scene; or"),
        ("scene", 1, "there are 1: set folds.group to none, which allows chips of one scene"),
    ],
)  # fmt: skip
def test_fewer_groups_than_folds_says_what_to_change(group: str, scenes: int, remedy: str):
    chips = make_chips(scenes=scenes, locations=2)
    with pytest.raises(ValueError, match=remedy):
        folds.split(chips, FoldsParams(test_share=0, number=5, group=group), seed=0)


def test_fewer_chips_than_folds_says_to_lower_the_number():
    chips = make_chips().head(3)
    with pytest.raises(
        ValueError, match=r"need at least 5 chips, but there are 3: set folds\.number to 3 or less; or add data"
    ):
        folds.split(chips, FoldsParams(test_share=0, number=5, group="none"), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.drop(columns="location"), r"lack the columns \['location'\]"),
        (lambda c: c.head(0), "no chips"),
        (lambda c: pd.concat([c, c.head(1)]), r"1 chip ids occur twice \(c0000\)"),
        (lambda c: c.assign(coverage_share=[62] + [0.5] * (len(c) - 1)), r"of 1 chips is outside 0-1 \(c0000\)"),
        (lambda c: c.assign(datetime="yesterday"), "not ISO 8601"),
    ],
)  # fmt: skip
def test_unusable_chips_are_refused(change, message: str):
    with pytest.raises(ValueError, match=message):
        folds.split(change(make_chips()), FoldsParams(test_share=0), seed=0)


def test_the_challenge_sized_set_is_split_in_seconds():
    chips, params = make_chips(scenes=92, locations=81, chips_per_scene=127), FoldsParams(test_share=0, number=5)
    table = folds.split(chips, params, seed=0)
    folds.check(table, chips, params)
    size = table["fold"].value_counts()
    assert size.max() / size.min() < 1.1


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def good() -> tuple[pd.DataFrame, pd.DataFrame, FoldsParams]:
    chips, params = make_chips(scenes=6, locations=6, chips_per_scene=2), FoldsParams(test_share=0, number=3)
    return folds.split(chips, params, seed=0), chips, params


def test_a_split_scene_is_named(good):
    table, chips, params = good
    table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    with pytest.raises(LeakError, match=rf"1 scenes are in more than one fold \({table.loc[0, 'scene']}\)"):
        folds.check(table, chips, params)


def test_a_split_location_is_named():
    chips = make_chips(scenes=6, locations=3, chips_per_scene=1)
    table = make_folds(chips, [0, 1, 2, 0, 1, 1])
    folds.check(table, chips, FoldsParams(test_share=0, number=3))
    with pytest.raises(LeakError, match=r"1 locations are in more than one fold \(place2\)"):
        folds.check(table, chips, FoldsParams(test_share=0, number=3, group="location"))


def test_group_none_may_split_scenes():
    chips = make_chips(scenes=1, locations=1, chips_per_scene=4)
    folds.check(make_folds(chips, [0, 1, 0, 1]), chips, FoldsParams(test_share=0, number=2, group="none"))


def test_a_scene_column_that_hides_a_leak_is_found(good):
    table, chips, params = good
    table.loc[0, "scene"] = "elsewhere@undated"
    with pytest.raises(LeakError, match=r"1 chips have another scene .* \(c0000\)"):
        folds.check(table, chips, params)


def test_missing_and_unknown_chips_are_named(good):
    table, chips, params = good
    table.loc[3, "chip_id"] = "stranger"
    with pytest.raises(LeakError, match=r"1 have no fold \(c0003\), 1 are unknown \(stranger\)"):
        folds.check(table, chips, params)


def test_empty_folds_are_named(good):
    table, chips, _ = good
    with pytest.raises(LeakError, match=r"folds \[3, 4\] of 5 are empty"):
        folds.check(table, chips, FoldsParams(test_share=0, number=5))


def test_surplus_folds_are_named(good):
    table, chips, _ = good
    with pytest.raises(LeakError, match=r"there are folds \[2\], but folds.number is 2"):
        folds.check(table, chips, FoldsParams(test_share=0, number=2))


def test_a_chip_in_two_folds_breaks_the_schema(good):
    table, chips, params = good
    with pytest.raises(tables.TableError, match="same chip_id"):
        folds.check(pd.concat([table, table.head(1)]), chips, params)


# --- balance --------------------------------------------------------------------------------------------------------


def test_spread_is_the_share_of_chips_that_would_have_to_change_folds():
    chips = make_chips(scenes=4, locations=2, chips_per_scene=5)
    params = FoldsParams(test_share=0, number=2)
    apart = fold_balance.balance(make_folds(chips, [0] * 10 + [1] * 10), chips, params).set_index("criterion")
    together = fold_balance.balance(make_folds(chips, ([0] * 5 + [1] * 5) * 2), chips, params).set_index("criterion")
    assert apart.loc["size", "spread_share"] == 0
    assert apart.loc["location", "spread_share"] == 0
    assert together.loc["location", "spread_share"] == 0.5
    lopsided = fold_balance.balance(make_folds(chips, [0] * 15 + [1] * 5), chips, params).set_index("criterion")
    assert lopsided.loc["size", "spread_share"] == 0.25


def test_balance_says_that_one_scene_per_location_cannot_be_spread():
    chips, params = make_chips(scenes=10, locations=10), FoldsParams(test_share=0, number=2)
    row = fold_balance.balance(folds.split(chips, params, seed=0), chips, params).set_index("criterion").loc["location"]
    assert row["one_group_share"] == 1
    assert row["least_share"] == row["spread_share"] == row["groups_shuffled_share"] == 0.5


def test_least_share_counts_folds_that_a_value_cannot_reach():
    chips, params = make_chips(scenes=4, locations=2, chips_per_scene=5), FoldsParams(test_share=0, number=4)
    row = fold_balance.balance(folds.split(chips, params, seed=0), chips, params).set_index("criterion").loc["location"]
    assert row["least_share"] == row["spread_share"] == 0.5


def test_coverage_bins_have_equal_width_and_include_one():
    share = np.array([0, 0.19, 0.2, 0.5, 0.99, 1, np.nan])
    assert coverage.coverage_bin(share, 5).tolist() == [0, 0, 1, 2, 4, 4, coverage.NO_LABEL]
