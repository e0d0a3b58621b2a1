"""Confusion counts per chip, and the figures and intervals made from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import accuracy_score, jaccard_score, precision_score, recall_score

from cloudcover.evaluate import metrics
from cloudcover.evaluate.estimate import Estimate
from cloudcover.masks import overlap as counting
from cloudcover.masks.overlap import confusion

MASKS = hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1]))
LABELS = hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 1, 255]))


def make_counts(chips: int = 60, locations: int = 12, seed: int = 0, error: float = 0.2) -> pd.DataFrame:
    """Counts of chips of 1,000 pixels whose error varies by location."""
    rng = np.random.default_rng(seed)
    location = np.arange(chips) % locations
    cloud = rng.integers(0, 1001, chips)
    rate = np.clip(error + rng.normal(0, 0.1, locations)[location], 0, 1)
    fn, fp = rng.binomial(cloud, rate), rng.binomial(1000 - cloud, rate)
    return pd.DataFrame(
        {
            "chip_id": [f"c{i:03d}" for i in range(chips)],
            "location": [f"place{i:02d}" for i in location],
            "tp_pixels": cloud - fn,
            "fp_pixels": fp,
            "fn_pixels": fn,
            "tn_pixels": 1000 - cloud - fp,
        }
    )


def frame(counted: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(counted, columns=list(counting.COLUMNS))
    return table.assign(chip_id=[f"c{i}" for i in range(len(table))], location="A")


# --- counts ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(prediction=MASKS, label=LABELS)
def test_figures_equal_those_of_scikit_learn_on_known_pixels(prediction: np.ndarray, label: np.ndarray):
    table = frame(confusion(prediction, label))
    known = label != 255
    assert table[list(counting.COLUMNS)].to_numpy().sum() == known.sum()
    truth, predicted = label[known], prediction[known]
    row = metrics.by_group(table, "location").iloc[0]
    if len(truth):
        assert metrics.jaccard(table) == pytest.approx(jaccard_score(truth, predicted, zero_division=1.0))
        assert row["jaccard"] == metrics.jaccard(table)
        assert row["precision"] == pytest.approx(precision_score(truth, predicted, zero_division=1.0))
        assert row["recall"] == pytest.approx(recall_score(truth, predicted, zero_division=1.0))
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    else:
        assert metrics.jaccard(table) == row["accuracy"] == 1


@settings(max_examples=50, deadline=None, derandomize=True)
@given(prediction=MASKS, label=LABELS, flipped=MASKS)
def test_predictions_of_unknown_pixels_make_no_difference(prediction, label, flipped):
    other = np.where(label == 255, prediction ^ flipped, prediction)
    np.testing.assert_array_equal(confusion(prediction, label), confusion(other, label))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(prediction=MASKS, label=LABELS, order=st.permutations(range(3)))
def test_batches_and_order_make_no_difference(prediction, label, order):
    whole = confusion(prediction, label)
    parts = np.concatenate([confusion(prediction[i : i + 1], label[i : i + 1]) for i in order])
    np.testing.assert_array_equal(parts, whole[list(order)])
    assert metrics.jaccard(frame(parts)) == metrics.jaccard(frame(whole))


def test_counts_are_exact_in_a_case_done_by_hand():
    prediction = np.array([[[1, 1, 1, 0, 0, 0, 1]]], dtype=np.uint8)
    label = np.array([[[1, 1, 0, 1, 0, 0, 255]]], dtype=np.uint8)
    counted = confusion(prediction, label)
    assert counted.dtype == np.int64
    assert counted.tolist() == [[2, 1, 1, 2]]
    assert confusion(prediction.astype(bool), label).tolist() == [[2, 1, 1, 2]]


def test_arrays_that_are_not_contiguous_are_counted():
    rng = np.random.default_rng(0)
    label = rng.choice(np.array([0, 1, 255], np.uint8), (4, 8, 8))
    prediction = rng.integers(0, 2, (4, 8, 8)).astype(np.uint8)
    views = confusion(prediction[::2, ::-1, 1::2], label[::2, ::-1, 1::2])
    copies = confusion(prediction[::2, ::-1, 1::2].copy(), label[::2, ::-1, 1::2].copy())
    np.testing.assert_array_equal(views, copies)


def test_no_chips_give_no_rows():
    assert confusion(np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), np.uint8)).shape == (0, 4)


def test_other_label_values_are_refused_with_their_histogram():
    label = np.zeros((2, 2, 2), np.uint8)
    label[1] = [[1, 128], [128, 255]]
    with pytest.raises(ValueError, match=r"chip 1 of 2 holds values .* per value: \{1: 1, 128: 2, 255: 1\}"):
        confusion(np.zeros((2, 2, 2), bool), label)


def test_a_prediction_of_0_and_255_is_refused():
    with pytest.raises(ValueError, match=r"other than 0 and 1: \{0: 3, 255: 1\}"):
        confusion(np.array([[[0, 0], [0, 255]]], np.uint8), np.zeros((1, 2, 2), np.uint8))


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        (np.zeros((1, 2, 2), bool), np.zeros((1, 2, 3), np.uint8), r"\(1, 2, 2\) and label \(1, 2, 3\)"),
        (np.zeros((2, 2), bool), np.zeros((2, 2), np.uint8), "must both be N x H x W"),
        (np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8), "compare probabilities with a threshold"),
        (np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), np.int64), "label uint8, not bool and int64"),
    ],
)
def test_other_shapes_and_types_are_refused(prediction, label, message):
    with pytest.raises(ValueError, match=message):
        confusion(prediction, label)


# --- figures --------------------------------------------------------------------------------------------------------


def test_jaccard_is_global_and_not_a_mean_over_chips():
    table = frame(np.array([[90, 10, 0, 0], [0, 0, 1, 99]]))
    assert metrics.jaccard(table) == 90 / 101


def test_jaccard_of_an_empty_union_is_one():
    assert metrics.jaccard(frame(np.array([[0, 0, 0, 100], [0, 0, 0, 7]]))) == 1


def test_by_group_sums_chips_and_pixels():
    table = make_counts()
    by_location = metrics.by_group(table, "location")
    assert list(by_location) == ["location", "chips", *counting.COLUMNS, "jaccard", "precision", "recall", "accuracy"]
    assert by_location["chips"].tolist() == [5] * 12
    sums = by_location[list(counting.COLUMNS)].sum()
    assert sums["tp_pixels"] / (sums.sum() - sums["tn_pixels"]) == metrics.jaccard(table)
    assert metrics.location_mean(table) == by_location["jaccard"].mean()


def test_by_group_keeps_chips_without_a_value():
    table = make_counts().assign(location=lambda t: t["location"].where(t.index > 0, None))
    assert metrics.by_group(table, "location")["chips"].sum() == 60


def test_by_group_compares_runs_of_the_same_chips():
    both = pd.concat([make_counts().assign(run="a"), make_counts(error=0.4).assign(run="b")])
    by_run = metrics.by_group(both, "run").set_index("run")["jaccard"]
    assert by_run["a"] == metrics.jaccard(both[both["run"] == "a"])
    assert by_run["a"] > by_run["b"]


def test_coverage_bins_group_labels_in_order():
    table = frame(np.array([[0, 5, 0, 5], [0, 0, 2, 8], [10, 0, 0, 0], [0, 0, 0, 0]]))
    table["coverage"] = metrics.coverage_bins(table)
    assert table["coverage"].tolist() == ["0-0.2", "0.2-0.4", "0.8-1", "unknown"]
    assert metrics.by_group(table, "coverage")["coverage"].tolist() == ["0-0.2", "0.2-0.4", "0.8-1", "unknown"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="fn_pixels"), r"lack the columns \['fn_pixels'\]"),
        (lambda t: t.head(0), "no chip was evaluated"),
        (lambda t: t.assign(tn_pixels=-1), "negative"),
        (lambda t: pd.concat([t, t.head(1)]), r"1 rows repeat a chip \(c000\); choose one run and one TTA policy"),
    ],
)
@pytest.mark.parametrize("figure", [metrics.jaccard, metrics.location_mean, metrics.bootstrap])
def test_unusable_counts_are_refused(change, message, figure):
    with pytest.raises(ValueError, match=message):
        figure(change(make_counts()))


# --- intervals ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), locations=st.integers(1, 20), error=st.floats(0, 0.6))
def test_interval_contains_the_value(seed: int, locations: int, error: float):
    table = make_counts(locations=locations, seed=seed, error=error)
    for statistic, value in (
        (metrics.global_jaccard, metrics.jaccard(table)),
        (metrics.mean_jaccard, metrics.location_mean(table)),
    ):
        interval = metrics.bootstrap(table, resamples=200, seed=seed, statistic=statistic)
        assert interval.value == pytest.approx(value, abs=1e-12)
        assert interval.low - 1e-12 <= interval.value <= interval.high + 1e-12


def test_interval_equals_that_of_a_plain_loop():
    table, resamples = make_counts(), 400
    names = sorted(table["location"].unique())
    weights = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), size=resamples)
    parts = dict(iter(table.groupby("location")))
    values = []
    for row in weights:
        drawn = pd.concat([parts[name] for name, times in zip(names, row, strict=True) for _ in range(times)])
        tp, fp, fn, _ = drawn[list(counting.COLUMNS)].sum()
        values.append(tp / (tp + fp + fn))
    interval = metrics.bootstrap(table, resamples=resamples, seed=7)
    half = stats.t.ppf(0.975, 11) * np.sqrt(12 / 11) * np.std(values)
    assert (interval.low, interval.high) == pytest.approx((interval.value - half, interval.value + half))


def test_interval_depends_on_the_seed_and_not_on_the_order_of_chips():
    table = make_counts()
    interval = metrics.bootstrap(table, seed=1)
    assert metrics.bootstrap(table.sample(frac=1, random_state=0), seed=1) == interval
    assert metrics.bootstrap(table, seed=2) != interval


def test_resampling_locations_is_wider_than_resampling_chips_when_errors_cluster():
    table = make_counts(chips=600, locations=12)
    by_location, by_chip = metrics.bootstrap(table), metrics.bootstrap(table, group="chip_id")
    assert by_location.high - by_location.low > 2 * (by_chip.high - by_chip.low)


def test_about_95_of_100_intervals_contain_the_true_value():
    truth = metrics.jaccard(make_counts(chips=60_000, locations=20_000, seed=99))
    hits = 0
    for seed in range(100):
        interval = metrics.bootstrap(make_counts(chips=120, locations=40, seed=seed), resamples=300, seed=seed)
        hits += interval.low <= truth <= interval.high
    assert 87 <= hits <= 99


def test_one_location_has_an_interval_without_width():
    interval = metrics.bootstrap(make_counts(locations=1))
    assert interval.low == interval.value == interval.high


def test_paired_interval_of_a_model_with_itself_is_zero():
    table = make_counts()
    assert metrics.paired_bootstrap(table, table.sample(frac=1, random_state=0)) == Estimate(value=0, low=0, high=0)


def test_paired_interval_is_the_difference_and_changes_sign():
    better, worse = make_counts(error=0.2), make_counts(error=0.22)
    difference = metrics.paired_bootstrap(better, worse, seed=3)
    assert difference.value == pytest.approx(metrics.jaccard(better) - metrics.jaccard(worse))
    opposite = metrics.paired_bootstrap(worse, better, seed=3)
    assert (opposite.value, opposite.low, opposite.high) == pytest.approx(
        (-difference.value, -difference.high, -difference.low)
    )


def test_pairing_cancels_what_both_models_find_hard():
    better, worse = make_counts(error=0.2), make_counts(error=0.22)
    single, difference = metrics.bootstrap(better), metrics.paired_bootstrap(better, worse)
    assert difference.low > 0
    assert difference.high - difference.low < 0.3 * (single.high - single.low)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[1:], r"not evaluated on the same chips: 1 differ \(c000\)"),
        (lambda t: t.assign(location="A"), "same labels and locations: 60 chips differ"),
        (lambda t: t.assign(tn_pixels=t["tn_pixels"] + (t.index == 4)), r"1 chips differ \(c004\)"),
        (lambda t: pd.concat([t, t.head(1)]), "choose one run"),
    ],
)
def test_models_of_other_chips_or_labels_are_not_paired(change, message):
    table = make_counts()
    with pytest.raises(ValueError, match=message):
        metrics.paired_bootstrap(table, change(table))
