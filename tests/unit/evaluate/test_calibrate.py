"""What is chosen for the final models: recovered where known, never from held-out scenes, unused without a gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from cloudcover.config.params import validate
from cloudcover.evaluate.calibrate.calibration import Calibration
from cloudcover.evaluate.calibrate.calibrator import Calibrator, best_level, calibrate
from cloudcover.evaluate.calibrate.candidate import InferenceCandidate, Scorer
from cloudcover.evaluate.calibrate.ensemble import fit_weights, weights_on
from cloudcover.evaluate.calibrate.held_out import groups_of, spread
from cloudcover.evaluate.calibrate.search import search
from cloudcover.evaluate.calibrate.temperature import (
    calibration_error,
    reliability,
    reliability_sums,
)
from cloudcover.masks.overlap import confusion
from cloudcover.masks.postprocess import Postprocess
from cloudcover.masks.temperature import fit_temperature, log_loss
from helpers.held_out import clouds, held_out, sigmoid

EVALUATION = validate({"evaluation": {"resamples": 200}}).evaluation
NO_TRIALS = validate({"calibration": {"trials": 0}}).calibration
TRIALS = validate({"calibration": {"trials": 9}}).calibration
HISTOGRAMS = hnp.arrays(np.int64, (2, 256), elements=st.integers(0, 1000))


def decided(held, params=NO_TRIALS) -> tuple[Calibration, pd.DataFrame]:
    calibration, ensemble, _ = calibrate(held, "vflip", EVALUATION, params, seed=0)
    return calibration, ensemble.set_index("combination")


def step(calibration: Calibration, name: str):
    return next(s for s in calibration.steps if s.name == name)


# --- weights ---------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(share=st.floats(0, 1), seed=st.integers(0, 100))
def test_weights_of_a_known_mixture_are_recovered(share, seed):
    rng = np.random.default_rng(seed)
    members = rng.uniform(0.02, 0.98, (3, 40_000))
    truth = share * members[0] + (1 - share) * members[1]  # the third knows nothing
    weights = fit_weights(members, rng.random(len(truth)) < truth)
    np.testing.assert_allclose(weights, [share, 1 - share, 0], atol=0.06)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0


def test_weights_without_pixels_or_choice_are_equal():
    assert fit_weights(np.zeros((2, 0)), np.zeros(0, bool)).tolist() == [0.5, 0.5]
    assert fit_weights(np.full((1, 5), 0.4), np.ones(5, bool)).tolist() == [1]


def test_each_fold_gets_the_weights_of_its_own_chips():
    logits = clouds(20)
    labels = np.random.default_rng(0).random(logits.shape) < sigmoid(logits)
    held = held_out(np.stack([sigmoid(logits), sigmoid(logits)]), labels)
    noise = np.random.default_rng(1).random(logits.shape)
    for fold, broken in ((0, 1), (1, 0)):
        rows = (held.chips["fold"] == fold).to_numpy()
        held.probabilities[broken][rows] = np.rint(255 * noise[rows])
    everything = np.ones(20, bool)
    by_fold = np.array(weights_on(held, everything, "fold", 0))
    np.testing.assert_allclose(by_fold, [[1, 0], [0, 1]], atol=0.1)
    one = weights_on(held, everything, "oof", 0)
    assert one[0] == one[1]
    calibration, table = decided(held)
    assert step(calibration, "weights").used
    assert table.loc["weights by fold", "gain_low"] > max(0, table.loc["one set of weights", "gain"])
    assert calibration.settings.weights["m0-fold0"] == pytest.approx(0.5, abs=0.05)
    assert calibration.settings.weights["m1-fold0"] == pytest.approx(0.0, abs=0.05)
    assert sum(calibration.settings.weights.values()) == pytest.approx(1)


def test_a_useless_member_is_left_out_only_as_far_as_it_harms():
    logits = clouds(20)
    labels = np.random.default_rng(0).random(logits.shape) < sigmoid(logits)
    noise = np.random.default_rng(1).random(logits.shape)
    calibration, table = decided(held_out(np.stack([sigmoid(logits), noise]), labels))
    assert step(calibration, "weights").used
    assert table.loc["m1", "gain_high"] < 0
    assert calibration.jaccard.value > calibration.jaccard_before.value


# --- calibration -----------------------------------------------------------------------------------------------------


def calibrated_histogram(temperature: float, pixels: int = 2_000_000) -> np.ndarray:
    """Pixels whose probabilities would be right if their logits were divided by the temperature."""
    rng = np.random.default_rng(0)
    logits = np.clip(rng.normal(0, 1.5, pixels), -5 / temperature, 5 / temperature)
    cloud = rng.random(pixels) < sigmoid(logits)
    said = np.rint(255 * sigmoid(temperature * logits)).astype(int)
    return np.bincount(said + 256 * cloud, minlength=512).reshape(2, 256)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_of_made_logits_is_recovered(temperature):
    histogram = calibrated_histogram(temperature)
    assert fit_temperature(histogram) == pytest.approx(temperature, rel=0.02)
    after = calibration_error(reliability_sums(histogram, temperature))
    assert after < 0.004
    if temperature != 1:
        assert calibration_error(reliability_sums(histogram)) > 0.05


@settings(max_examples=30, deadline=None, derandomize=True)
@given(histogram=HISTOGRAMS)
def test_log_loss_and_reliability_equal_those_of_scikit_learn(histogram):
    histogram[:, 100] += 1
    said = np.tile(np.arange(256) / 255, 2)
    so, weight = np.repeat([0, 1], 256), histogram.ravel()
    clipped = np.clip(said, 1 / 510, 1 - 1 / 510)
    expected = sklearn_metrics.log_loss(so, clipped, sample_weight=weight, labels=[0, 1]) * weight.sum()
    assert log_loss(histogram) == pytest.approx(expected)
    few = np.minimum(histogram, 3)
    few[:, ::17] = 0  # on the edges of the bins, where rounding decides
    repeated = np.repeat(np.arange(512), few.ravel())
    shares, means = calibration_curve(so[repeated], said[repeated], n_bins=15)
    table = reliability(reliability_sums(few))
    np.testing.assert_allclose(table["cloud_share"], shares)
    np.testing.assert_allclose(table["probability"], means, atol=1e-6)


def test_the_calibration_error_of_a_case_done_by_hand():
    histogram = np.zeros((2, 256), np.int64)
    histogram[:, 51] = 6, 4  # says 0.2, is 0.4
    histogram[:, 255] = 0, 30  # says 1, is 1
    sums = reliability_sums(histogram)
    assert calibration_error(sums) == pytest.approx(0.2 * 10 / 40)
    table = reliability(sums)
    assert table["pixels"].tolist() == [10, 30]
    assert table["cloud_share"].tolist() == [0.4, 1]


def test_an_overconfident_model_gets_a_temperature_and_a_calibrated_one_none():
    logits = clouds(30) / 2
    labels = np.random.default_rng(0).random(logits.shape) < sigmoid(logits)
    bold, _ = decided(held_out(sigmoid(2 * logits)[None], labels))
    assert step(bold, "temperature").used
    assert bold.settings.temperature == pytest.approx(2, rel=0.1)
    assert bold.calibration_error.value < bold.calibration_error_before.value / 2
    assert bold.settings.threshold == pytest.approx(0.5, abs=0.2)
    right, _ = decided(held_out(sigmoid(logits)[None], labels))
    assert step(right, "temperature").gain.value < 1e-3
    assert right.settings.temperature == pytest.approx(1, abs=0.1)


# --- threshold, masks and post-processing ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True)
@given(histogram=HISTOGRAMS, near=st.floats(0, 254))
def test_no_level_has_a_higher_jaccard_than_the_best(histogram, near):
    best = best_level(histogram, near)

    def jaccard(level: int) -> float:
        tp, fp = histogram[1, level + 1 :].sum(), histogram[0, level + 1 :].sum()
        union = histogram[1].sum() + fp
        return tp / union if union else 1.0

    values = [jaccard(level) for level in range(255)]
    assert values[best] == max(values)


def test_of_equal_levels_the_nearest_is_taken():
    histogram = np.zeros((2, 256), np.int64)
    histogram[0, 20], histogram[1, 200] = 5, 5
    assert best_level(histogram, 127.5) == 127
    assert best_level(histogram, 0) == 20


@settings(max_examples=15, deadline=None, derandomize=True)
@given(threshold=st.floats(0.05, 0.95), temperature=st.sampled_from([1.0, 0.7, 1.9]))
def test_counts_from_histograms_are_those_of_the_masks(threshold, temperature):
    logits = clouds(6, 8)
    labels = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), logits.shape)
    scorer = Scorer(held_out(np.stack([sigmoid(logits), sigmoid(-logits / 2)]), labels), threads=2)
    candidate = InferenceCandidate(((0.7, 0.3), (0.2, 0.8)), temperature, threshold)
    by_hand = replace(candidate, postprocess=Postprocess(min_area_pixels=1))  # changes nothing, but makes masks
    np.testing.assert_array_equal(scorer.counts(candidate), scorer.counts(by_hand))
    known = labels != 255
    masks = np.concatenate([scorer.held.combined(candidate.weights, slice(i, i + 1)) for i in range(6)]) / 255
    if temperature == 1:
        found = scorer.jaccard(candidate, np.ones(6, bool))
        assert found == pytest.approx(
            sklearn_metrics.jaccard_score(labels[known], masks[known] > threshold, zero_division=1.0)
        )


def specks(chips: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Confident predictions with single wrong pixels, and the labels."""
    logits = clouds(chips)
    labels = logits > 0
    wrong = np.random.default_rng(1).random(labels.shape) < 0.03
    return np.where(labels ^ wrong, 0.9, 0.1), labels


def test_a_post_processing_that_helps_everywhere_is_found_and_used():
    predicted, labels = specks()
    calibration, _ = decided(held_out(predicted[None], labels), TRIALS)
    found = step(calibration, "postprocess")
    assert found.used
    assert found.gain.low > 0.01
    assert calibration.settings.postprocess != Postprocess()
    masks = calibration.settings.postprocess.masks(predicted.astype(np.float32), calibration.settings.threshold)
    tp, fp, fn, _ = confusion(masks, labels.astype(np.uint8)).sum(axis=0)
    assert tp / (tp + fp + fn) == pytest.approx(calibration.jaccard.value, abs=0.02)


def test_a_post_processing_that_takes_small_clouds_away_is_not_used():
    """Small clouds look like the specks of which there are more: without both, the Jaccard is higher."""
    labels = np.zeros((30, 24, 24), bool)
    labels[:, :12] = True
    predicted = labels.copy()
    labels[:, 20:23, 3:6] = predicted[:, 20:23, 3:6] = True  # a small cloud, which is found
    for column in (9, 14, 19):
        predicted[:, 20:23, column : column + 3] = True  # three that are none
    held = held_out(np.where(predicted, 0.9, 0.1)[None], labels)
    calibration, _ = decided(held, TRIALS)
    without = replace(InferenceCandidate(held.equal()), postprocess=Postprocess(min_area_pixels=16))
    scorer, everything = Scorer(held), np.ones(30, bool)
    assert scorer.jaccard(without, everything) > scorer.jaccard(InferenceCandidate(held.equal()), everything)
    assert not scorer.keeps_small(without, InferenceCandidate(held.equal()), everything)
    assert calibration.settings.postprocess == Postprocess()
    assert step(calibration, "postprocess").small_cloud_recall == 1


def test_what_does_not_help_is_not_used():
    logits = clouds(30)
    labels = np.random.default_rng(0).random(logits.shape) < sigmoid(logits)
    calibration, table = decided(held_out(np.stack([sigmoid(logits)] * 2), labels), TRIALS)
    assert not step(calibration, "weights").used
    assert table.loc["m0", "gain"] == 0
    assert set(calibration.settings.weights.values()) == {0.25}
    for found in calibration.steps:
        assert found.used == (found.gain.low > 0)
        assert 0 <= found.small_cloud_recall <= 1
    perfect, _ = decided(held_out(np.where(labels, 0.99, 0.01)[None], labels), TRIALS)
    assert not step(perfect, "threshold").used
    assert not step(perfect, "postprocess").used
    assert perfect.settings.threshold == 0.5
    assert perfect.settings.postprocess == Postprocess()


def test_a_gain_in_some_places_and_a_loss_in_others_is_not_used():
    """One location in five wants another threshold, so much that it wins in the sum; the interval includes zero."""
    labels = clouds(50) > 0
    predicted = np.where(labels, 0.7, 0.3)
    locations = [f"place{i % 10}" for i in range(50)]
    odd = np.array([name in ("place0", "place1") for name in locations])
    predicted[odd] = np.where(labels[odd], 0.4, 0.3)
    rest = (np.random.default_rng(2).random(labels.shape) < 0.05) & ~labels
    predicted[~odd] = np.where(rest[~odd], 0.45, predicted[~odd])
    calibration, _ = decided(held_out(predicted[None], labels, locations))
    found = step(calibration, "threshold")
    assert found.chosen < 0.5
    assert found.gain.value > 0
    assert found.gain.low <= 0
    assert not found.used
    assert calibration.settings.threshold == 0.5


# --- nested ----------------------------------------------------------------------------------------------------------


def test_groups_are_whole_locations_and_one_location_is_one_group():
    locations = pd.Series([f"p{i % 7}" for i in range(40)])
    groups = groups_of(locations, 5)
    assert set(groups) == set(range(5))
    assert pd.Series(groups).groupby(locations).nunique().max() == 1
    assert set(groups_of(locations, 100)) == set(range(7))
    assert groups_of(pd.Series(["a"] * 4), 5).tolist() == [0] * 4


@pytest.mark.parametrize("name", ["fit_threshold", "fit_temperature", "fit_postprocess", "weights"])
def test_what_is_chosen_for_a_group_does_not_depend_on_its_own_scenes(name):
    predicted, labels = specks(20)
    other = np.random.default_rng(5).random(predicted.shape)
    held = held_out(np.stack([predicted, other]), labels)
    mine = (held.chips["group"] == 0).to_numpy()
    changed = held_out(np.stack([predicted, other]), labels)
    changed.labels[mine] = 1 - changed.labels[mine]
    found = []
    for one in (held, changed):
        calibrator = Calibrator(Scorer(one), EVALUATION, TRIALS, seed=0)
        fit = calibrator.fit_weights("fold") if name == "weights" else getattr(calibrator, name)
        found.append((calibrator.nested(fit), fit(calibrator.everything, calibrator.used)))
    assert found[0][0][0] == found[1][0][0]  # the same for the group whose labels were changed
    assert found[0][0][1:] != found[1][0][1:]  # but not for those that were chosen on it


def test_the_threshold_of_held_out_scenes_would_be_another():
    """In each group another threshold is right; those of the others are no help, and none is used."""
    labels = clouds(20) > 0
    locations = [f"place{i % 2}" for i in range(20)]
    levels = {"place0": (0.2, 0.3), "place1": (0.7, 0.8)}
    predicted = np.stack([np.where(m, levels[n][1], levels[n][0]) for m, n in zip(labels, locations, strict=True)])
    held = held_out(predicted[None], labels, locations)
    calibrator = Calibrator(Scorer(held), EVALUATION, NO_TRIALS, seed=0)
    by_group = dict(zip(held.chips["location"], held.chips["group"], strict=True))
    nested = calibrator.nested(calibrator.fit_threshold)
    assert 0.7 <= nested[by_group["place0"]].threshold < 0.8
    assert 0.2 <= nested[by_group["place1"]].threshold < 0.3
    calibration, _ = decided(held)
    assert not step(calibration, "threshold").used
    assert calibration.settings.threshold == 0.5


def test_with_one_location_there_is_nothing_to_choose_on():
    predicted, labels = specks(6)
    calibration, _ = decided(held_out(predicted[None], labels, ["here"] * 6), TRIALS)
    assert not any(found.used for found in calibration.steps)
    assert all(found.gain.value == 0 for found in calibration.steps)


def test_equal_seeds_choose_equally():
    predicted, labels = specks(10)
    first, second = (decided(held_out(predicted[None], labels), TRIALS)[0] for _ in range(2))
    assert first == second
    assert Calibration.model_validate_json(first.model_dump_json()) == first


def test_a_search_without_trials_or_chips_keeps_what_is_used():
    predicted, labels = specks(4)
    scorer = Scorer(held_out(predicted[None], labels))
    start = InferenceCandidate(scorer.held.equal(), threshold=0.4)
    assert search(scorer, np.ones(4, bool), start, 0, 0) == start
    assert search(scorer, np.zeros(4, bool), start, 5, 0) == start


def test_chips_to_choose_on_come_from_all_scenes():
    chips = pd.DataFrame({"chip_id": [f"c{i:02d}" for i in range(40)], "scene": ["a"] * 30 + ["b"] * 8 + ["c"] * 2})
    chosen = spread(chips, 9, seed=0)
    assert chosen["scene"].value_counts().to_dict() == {"a": 4, "b": 3, "c": 2} or (
        chosen["scene"].value_counts().to_dict() == {"a": 3, "b": 4, "c": 2}
    )
    assert chosen["chip_id"].is_monotonic_increasing
    assert len(spread(chips, None, 0)) == 40
