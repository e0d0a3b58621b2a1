"""Evidence about labels: each piece by itself, and the colours and trees of a small set."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from cloudcover.config.sections import DataParams
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.disagreement import committee_evidence, confident_levels, model_evidence, self_confidence
from cloudcover.labels.evidence import EvidenceError, gather_evidence
from cloudcover.labels.geometry import (
    axis_edge,
    best_match,
    best_shift,
    enlarge,
    geometry_evidence,
    reduce,
    straight_edge,
)
from cloudcover.labels.scenes import scene_evidence, shared
from cloudcover.labels.spectral import haze, separability, spectral_evidence
from cloudcover.labels.trees import Sample, TreeCommittee, Trees, cells, describe, draw, one_core_each
from cloudcover.masks.overlap import iou
from helpers.labelled import BANDS, LEVELS, SIZE, clouds, folds_of, outlined, pixels, seen


def test_self_confidence_is_the_soft_minimum_of_the_paper():
    rng = np.random.default_rng(0)
    p = rng.random((3, 8, 8), dtype=np.float32)
    labels = rng.integers(0, 2, (3, 8, 8)).astype(np.uint8)
    q = np.where(labels == 1, p, 1 - p).reshape(3, -1).astype(np.float64)
    weight = np.exp((1 - q) / 0.1)
    expected = (q * weight).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(self_confidence(p, labels), expected, rtol=1e-5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_unknown_pixels_change_nothing(seed):
    rng = np.random.default_rng(seed)
    truth = clouds(1, seed=seed % 1000)
    labels = truth.astype(np.uint8)
    labels[:, :, : int(rng.integers(1, 60))] = 255
    hidden = labels == 255
    one, other = seen(truth), seen(truth)
    other[hidden] = rng.random(int(hidden.sum()))
    dn = pixels(truth)
    noise = dn.copy()
    noise[:, :, hidden[0]] = rng.integers(1, 60_000, (1, 4, int(hidden.sum())))
    a, b = (
        {
            **model_evidence(p, labels, LEVELS),
            **committee_evidence(np.stack([p, np.sqrt(p)]), labels),
            **geometry_evidence(p, labels),
            **spectral_evidence(chip, labels, BANDS),
            "separability": separability(chip, labels),
        }
        for p, chip in ((one, dn), (other, noise))
    )
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], atol=1e-6, err_msg=name)


def test_a_chip_without_known_pixels_raises_no_suspicion():
    labels = np.full((1, SIZE, SIZE), 255, np.uint8)
    found = model_evidence(seen(clouds(1)), labels, LEVELS)
    assert found["oof_iou"] == found["tolerant_iou"] == found["self_confidence"] == 1
    assert found["missed_share"] == found["false_share"] == found["disagreement_share"] == 0


def test_only_what_all_models_contradict_counts_as_contradicted():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[:, 0], labels[:, 1] = 1, 255
    cloud, clear = np.full((1, 4, 4), 0.9, np.float32), np.full((1, 4, 4), 0.1, np.float32)
    found = committee_evidence(np.stack([cloud, clear]), labels)
    assert (found["all_against_share"], found["any_against_share"]) == (0, 1)
    found = committee_evidence(np.stack([cloud, cloud]), labels)
    assert found["all_against_share"] == found["any_against_share"] == pytest.approx(8 / 12)


def test_a_model_is_confident_by_its_own_standard():
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[:, :2], labels[:, 3] = 1, 255
    p = np.full((1, 4, 4), 0.3, np.float32)
    p[:, :2], p[:, 3] = 0.9, 0.99
    assert confident_levels(p, labels) == pytest.approx((0.7, 0.9))
    assert confident_levels(p * 0 + 0.5, labels) == (0.55, 0.55)
    assert confident_levels(p, np.full_like(labels, 255)) == (0.8, 0.8)


def test_a_dilated_outline_is_forgiven():
    truth = clouds(6)
    found = model_evidence(seen(truth), outlined(truth).astype(np.uint8), LEVELS)
    assert (found["oof_iou"] < 0.85).all()
    assert (found["tolerant_iou"] == 1).all()
    assert (found["false_share"] == 0).all()


def test_the_shift_of_a_label_is_measured():
    truth = clouds(6)
    label = np.zeros_like(truth)
    label[:, 12:, 16:] = truth[:, :-12, :-16]
    found = best_shift(truth, label)
    np.testing.assert_allclose(found["best_shift_pixels"], 20, atol=3)
    assert (found["shift_gain_iou"] > 0.2).all()
    assert (best_shift(truth, truth)["shift_gain_iou"] == 0).all()


def test_edges_along_the_border_and_straight_lines_are_found():
    truth = clouds(6)
    assert (axis_edge(outlined(truth), truth) < 0.2).all()
    assert (straight_edge(outlined(truth), truth) < 0.2).all()
    stripe, wedge = truth.copy(), truth.copy()
    stripe[:, :, :20] = True
    stripe[:, :, 20:24] = False
    assert (axis_edge(stripe, truth) > 0.4).all()
    rows, columns = np.mgrid[:SIZE, :SIZE]
    wedge[:, rows + 0.6 * columns < 90] = True
    assert (straight_edge(wedge, truth) > straight_edge(outlined(truth), truth) + 0.1).all()


def test_a_mask_of_another_chip_is_recognised():
    truth = clouds(10)
    labels = truth.copy()
    labels[[2, 7]] = labels[[7, 2]]
    own, other, which = best_match(reduce(labels, 16), reduce(seen(truth), 16), block=3)
    assert which[2] == 7
    assert which[7] == 2
    assert (other[[2, 7]] > 0.9).all()
    assert (own[[2, 7]] < 0.5).all()
    rest = np.setdiff1d(np.arange(10), [2, 7])
    assert (own[rest] > 0.9).all()


def test_right_masks_separate_the_colours_of_a_chip_and_shifted_ones_do_not():
    truth = clouds(6)
    dn = pixels(truth)
    right = separability(dn, outlined(truth).astype(np.uint8))
    shifted = separability(dn, np.roll(truth, (14, 10), axis=(1, 2)).astype(np.uint8))
    assert (right > 0.9).all()
    assert (shifted < 0.85).all()
    assert np.isnan(separability(dn, np.zeros_like(truth, np.uint8))).all()


def test_colours_contradict_wrong_masks():
    truth = clouds(4)
    dn = pixels(truth)
    right, inverted = (spectral_evidence(dn, m.astype(np.uint8), BANDS) for m in (truth, ~truth))
    assert (right["brightness_auc"] > 0.95).all()
    assert (inverted["brightness_auc"] < 0.05).all()
    assert (inverted["bright_outside_share"] > 0.3).all()
    assert (inverted["green_inside_share"] > 0.3).all()
    assert (right["bright_outside_share"] + right["green_inside_share"] + right["dark_inside_share"] == 0).all()


def test_sets_without_the_usual_bands_have_no_colour_tests():
    truth = clouds(2)
    found = spectral_evidence(pixels(truth)[:, :1], truth.astype(np.uint8), ["B11"])
    assert found["bright_outside_share"].tolist() == found["green_inside_share"].tolist() == [0, 0]
    assert (found["brightness_auc"] > 0.9).all()


def test_haze_shows_thin_cloud_over_land_of_every_brightness():
    land = np.linspace(0.05, 0.4, 50)
    ground = np.stack([land * 0.5, land * 0.8, land, land * 1.3], axis=0)[None, :, None].astype(np.float32)
    veiled = 0.9 * ground + np.float32(0.06)
    assert haze(ground, BANDS).max() < haze(veiled, BANDS).min()
    assert ground[:, :3].mean(axis=1).max() > veiled[:, :3].mean(axis=1).min()
    np.testing.assert_allclose(haze(ground, ["B11", "B12", "B05", "B06"]), ground[:, 0] / 2)


@pytest.mark.parametrize(("side", "number"), [(32, 32), (64, 64), (96, 48), (128, 64), (512, 64), (480, 60)])
def test_chips_of_every_size_have_about_as_many_cells(side, number):
    assert cells(side) == number


def test_enlarging_keeps_levels_and_ramps():
    rows = np.tile(np.arange(8, dtype=np.float32)[:, None], (1, 8))[None]
    large = enlarge(rows, 64)
    assert large.shape == (1, 64, 64)
    np.testing.assert_allclose(large[0, 4:-4, 0], (np.arange(4, 60) + 0.5) / 8 - 0.5, atol=1e-5)
    np.testing.assert_allclose(enlarge(np.full((1, 8, 8), 0.3, np.float32), 64), 0.3, rtol=1e-6)


def sample_of(truth: np.ndarray, labels: np.ndarray) -> Sample:
    """Some cells of chips, as `draw` gives them."""
    values = describe(pixels(truth), BANDS)
    shape = (len(truth), values.shape[1] ** 2)
    cloud = reduce(labels, values.shape[1]).reshape(shape)[:, ::27] > 0.5
    return Sample(values.reshape(*shape, -1)[:, ::27], cloud, np.ones(cloud.shape, bool))


@pytest.fixture
def pool():
    with one_core_each(2) as pool:
        yield pool


def test_trees_judge_by_what_others_taught_them_and_learn_wrong_labels_last(pool):
    truth = clouds(24)
    labels = truth.copy()
    labels[:2] = ~labels[:2]
    folds = np.arange(24) % 3
    trees = Trees(sample_of(truth, labels), folds, folds, 0, pool)
    p = enlarge(trees.probabilities(describe(pixels(truth), BANDS), folds), SIZE)
    assert p.shape == truth.shape
    assert np.mean(iou(p > 0.5, truth) > 0.8) > 0.9
    early = trees.early_agreement(pool)
    assert early[:2].max() < early[2:].min() - 0.2
    again = Trees(sample_of(truth, labels), folds, folds, 0, pool)
    np.testing.assert_array_equal(enlarge(again.probabilities(describe(pixels(truth), BANDS), folds), SIZE), p)


def test_trees_learn_nothing_from_unknown_cells(pool):
    truth = clouds(15)
    labels, folds = truth.copy(), np.arange(15) % 3
    labels[:8] = ~labels[:8]
    sample = sample_of(truth, labels)
    values = describe(pixels(truth), BANDS)
    inverted = sample.known & (np.arange(15) < 8)[:, None]
    hidden = Sample(sample.values, sample.cloud, sample.known & ~inverted)
    found = Trees(hidden, folds, folds, 0, pool).probabilities(values, folds)
    assert (iou(enlarge(found, SIZE) > 0.5, truth) > 0.8).all()
    other = Sample(np.where(inverted[..., None], 0, sample.values), sample.cloud ^ inverted, hidden.known)
    np.testing.assert_array_equal(Trees(other, folds, folds, 0, pool).probabilities(values, folds), found)


def test_labels_that_are_empty_over_cloud_do_not_teach_trees_that_cloud_is_rare(pool):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (100, 1, 1)) + rng.uniform(-0.4, 0.4, (100, 40, 1))
    cloud, empty = values[..., 0] > 0.5, rng.random(100) < 0.3
    sample = Sample(values.astype(np.float32), cloud & ~empty[:, None], np.ones_like(cloud))
    folds = np.arange(100) % 5
    p = Trees(sample, folds, folds, 0, pool).probabilities(sample.values[:, None], folds)[:, 0]
    assert p[cloud].mean() > 0.85  # of the labels over cloud, only 0.7 say so
    assert p[~cloud].mean() < 0.05


def test_trees_that_know_one_class_say_so(pool):
    truth = np.zeros((4, SIZE, SIZE), bool)
    opinion = TreeCommittee(sample_of(truth, truth), np.arange(4) % 2, 0, pool)
    assert (opinion.votes(pixels(truth), BANDS, np.arange(4)) == 0).all()
    assert (opinion.early_agreement == 1).all()


def test_each_thread_has_one_core_and_others_keep_theirs():
    def cores() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "openmp"}

    with threadpool_limits(3, "openmp"), one_core_each(2) as pool:
        assert pool.submit(cores).result() == {1}
        assert cores() == {3}


def test_a_scene_says_what_its_other_labels_have_in_common():
    table = pd.DataFrame(
        {
            "label_share": [0.1, 0.1, 0.1, 0.5, 0.5, 0.9],
            "predicted_share": [0.4, 0.4, 0.1, 0.5, 0.5, 0.2],
            "all_against_share": [0.3, 0.3, 0.0, 0.0, 0.0, 0.7],
        }
    )
    found = scene_evidence(table, pd.Series(list("aaabbc"), index=range(10, 16)))
    np.testing.assert_allclose(found["scene_residual_share"], [0.3 / 4, 0.3 / 4, 0.6 / 4, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found["scene_against_share"], [0.3 / 4, 0.3 / 4, 0.6 / 4, 0, 0, 0], atol=1e-12)


def test_a_label_shares_only_what_it_has_itself():
    own, others = np.array([0.3, 0.0, 0.3, -0.3, -0.1]), np.array([0.1, 0.2, -0.2, -0.2, -0.2])
    assert shared(own, others).tolist() == [0.1, 0, 0, 0.2, 0.1]


def test_cells_are_drawn_alike_in_any_order_and_unknown_ones_are_marked(small):
    store, _ = small
    chip_ids = store.index.loc[store.index["labelled"], "chip_id"].tolist()[:5]
    one, other = draw(store, chip_ids, seed=1), draw(store, chip_ids[::-1], seed=1)
    np.testing.assert_array_equal(one.values, other.values[::-1])
    np.testing.assert_array_equal(one.cloud, other.cloud[::-1])
    assert one.known.all()
    assert not draw(store, store.index.loc[~store.index["labelled"], "chip_id"].tolist(), seed=1).known.any()


def test_no_scene_is_judged_by_its_own_trees(small, gathered):
    store, _ = small
    evidence, votes = gathered
    scenes = store.index.loc[evidence["chip_id"], "scene"].to_numpy()
    assert (evidence.groupby(scenes)["tree_fold"].nunique() == 1).all()
    assert evidence["tree_fold"].nunique() == 5
    assert votes.shape == (len(evidence), 2, 64, 64)
    assert votes.dtype == np.uint8


def test_labels_of_a_scene_change_nothing_of_what_strangers_say_about_it(small, gathered, tmp_path):
    store, folder = small
    evidence, before = gathered
    scene = store.index.loc[evidence["chip_id"], "scene"].to_numpy()
    rows = np.flatnonzero(scene == scene[0])
    shutil.copytree(folder / "raw", tmp_path / "raw")
    for chip_id in evidence["chip_id"][rows]:
        with rasterio.open(tmp_path / "raw/train_labels" / f"{chip_id}.tif", "r+") as label:
            label.write(1 - label.read(1), 1)
    write_file_table(tmp_path / "raw", "test")
    pack(tmp_path / "raw", tmp_path / "store", tmp_path / "quarantine.csv", DataParams(chip_size=64))
    _, after = gather_evidence(ChipStore(tmp_path / "store"), folds_of(store), seed=0)
    np.testing.assert_array_equal(after[rows, 0], before[rows, 0])
    assert (after[rows, 1] != before[rows, 1]).any()


def test_labels_of_one_scene_or_none_are_refused_with_what_to_change(small):
    store, _ = small
    folds = folds_of(store)
    one = store.index.loc[store.index["labelled"], "scene"].iloc[0]
    with pytest.raises(EvidenceError, match=f"labels are of the scene {one}.*add labels of another scene"):
        gather_evidence(store, folds[folds["scene"] == one], seed=0)
    with pytest.raises(EvidenceError, match=r"none of the 0 chips outside the test part has a label"):
        gather_evidence(store, folds.assign(fold=-1), seed=0)
