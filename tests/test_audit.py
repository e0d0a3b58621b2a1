"""The label audit: each piece of evidence, their combination, and the audit of a small set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cloudcover.config.params import Params
from cloudcover.config.sections import AuditParams, DataParams, SyntheticParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import AuditError, audit
from cloudcover.labels.evidence import committee_evidence, confident_levels, model_evidence, self_confidence
from cloudcover.labels.geometry import axis_edge, best_match, best_shift, geometry_evidence, reduce, straight_edge
from cloudcover.labels.score import adjust_prior, estimated_error_share, features, judge, strengths
from cloudcover.labels.spectral import haze, separability, spectral_evidence
from cloudcover.labels.trees import Sample, TreeCommittee, Trees, cells, describe, draw, enlarge
from cloudcover.masks.overlap import iou
from cloudcover.sources.fetch import fetch

BANDS = ["B02", "B03", "B04", "B08"]
SIZE = 128
LEVELS = (0.8, 0.8)


def clouds(number: int, seed: int = 0, level: float = 0.0) -> np.ndarray:
    """N x SIZE x SIZE bool: rough outlines, about half cloud at level 0."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(number, SIZE, SIZE)), (0, 8, 8), mode="wrap")
    rough = ndimage.gaussian_filter(rng.normal(size=(number, SIZE, SIZE)), (0, 2, 2), mode="wrap")
    return fields / fields.std() + 0.4 * rough / rough.std() > level


def seen(masks: np.ndarray, sure: float = 0.95) -> np.ndarray:
    """Probabilities of a model that sees these masks, and doubts their outline."""
    soft = ndimage.gaussian_filter(masks.astype(np.float32), (0, 1.5, 1.5), mode="nearest")
    certain = np.where(masks, np.maximum(soft, 0.51), np.minimum(soft, 0.49))
    return (1 - sure + (2 * sure - 1) * certain).astype(np.float32)


def pixels(masks: np.ndarray, seed: int = 0) -> np.ndarray:
    """N x 4 x SIZE x SIZE uint16: white cloud over green land."""
    rng = np.random.default_rng(seed)
    land = np.array([400, 600, 400, 3500])[None, :, None, None]
    cloud = np.array([5000, 5000, 5100, 5300])[None, :, None, None]
    noise = rng.normal(1, 0.1, (len(masks), 1, SIZE, SIZE))
    return (np.where(masks[:, None], cloud, land) * noise).astype(np.uint16)


def outlined(masks: np.ndarray, width: int = 2) -> np.ndarray:
    """Labels as people draw them: a little outside the cloud."""
    return ndimage.binary_dilation(masks, ndimage.generate_binary_structure(3, 1)[1:2], iterations=width)


def drawn(masks: np.ndarray) -> np.ndarray:
    """Labels of several people, some of whom draw closer to the cloud than others."""
    return np.concatenate([outlined(mask[None], 1 + i % 3) for i, mask in enumerate(masks)])


def evidence_of(truth: np.ndarray, labels: np.ndarray, view: np.ndarray | None = None) -> pd.DataFrame:
    """The audit's evidence where the models see the truth, or another view."""
    labels = labels.astype(np.uint8)
    view = truth if view is None else view
    probabilities, dn = seen(view), pixels(truth)
    own, other, _ = best_match(reduce(labels == 1, 16), reduce(probabilities, 16))
    return pd.DataFrame(
        {
            **model_evidence(probabilities, labels, LEVELS),
            **committee_evidence(np.stack([probabilities] * 3), labels),
            "neighbour_iou": iou(view, labels == 1),
            "early_agreement": np.where(view == (labels == 1), 0.9, 0.1).mean(axis=(1, 2)),
            **geometry_evidence(probabilities, labels),
            **spectral_evidence(dn, labels, BANDS, 0),
            "label_separability_auc": separability(dn, labels),
            "own_correlation": own,
            "other_correlation": other,
        }
    )


def wrong_labels(truth: np.ndarray) -> dict[str, np.ndarray]:
    """Each kind of error on the same clouds."""
    stripes, artefact = outlined(truth), outlined(truth)
    stripes[:, np.arange(SIZE) % 12 < 6] = True
    rows, columns = np.mgrid[:SIZE, :SIZE]
    wedge = np.abs(np.arctan2(rows - SIZE / 2, columns)) < 0.5
    artefact[:, wedge] = (truth[:, wedge].mean(axis=1) < 0.5)[:, None]
    thinned = ndimage.binary_opening(truth, np.ones((1, 25, 25)))
    return {
        "empty_over_cloud": np.zeros_like(truth),
        "inverted": ~truth,
        "swapped": np.roll(outlined(truth), 1, axis=0),
        "shifted": np.roll(outlined(truth), (14, 10), axis=(1, 2)),
        "artefact": artefact,
        "stripes": stripes,
        "false_cloud": truth | clouds(len(truth), seed=9, level=-0.3),
        "missed_cloud": thinned & (np.mgrid[:SIZE, :SIZE][1] > SIZE / 2),
    }


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
            **spectral_evidence(chip, labels, BANDS, 0),
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
    right, inverted = (spectral_evidence(dn, m.astype(np.uint8), BANDS, 0) for m in (truth, ~truth))
    assert (right["brightness_auc"] > 0.95).all()
    assert (inverted["brightness_auc"] < 0.05).all()
    assert (inverted["bright_outside_share"] > 0.3).all()
    assert (inverted["green_inside_share"] > 0.3).all()
    assert (right["bright_outside_share"] + right["green_inside_share"] + right["dark_inside_share"] == 0).all()


def test_sets_without_the_usual_bands_have_no_colour_tests():
    truth = clouds(2)
    found = spectral_evidence(pixels(truth)[:, :1], truth.astype(np.uint8), ["B11"], 0)
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


def test_trees_judge_by_what_others_taught_them_and_learn_wrong_labels_last():
    truth = clouds(24)
    labels = truth.copy()
    labels[:2] = ~labels[:2]
    folds = np.arange(24) % 3
    trees = Trees(sample_of(truth, labels), folds, np.ones(24, bool), seed=0)
    p = trees.probabilities(describe(pixels(truth), BANDS), folds, SIZE)
    assert p.shape == truth.shape
    assert np.mean(iou(p > 0.5, truth) > 0.8) > 0.9
    early = trees.early_agreement()
    assert early[:2].max() < early[2:].min() - 0.2
    again = Trees(sample_of(truth, labels), folds, np.ones(24, bool), seed=0)
    np.testing.assert_array_equal(again.probabilities(describe(pixels(truth), BANDS), folds, SIZE), p)


def test_trees_learn_nothing_from_rejected_labels_and_unknown_cells():
    truth = clouds(15)
    labels, folds = truth.copy(), np.arange(15) % 3
    labels[:8] = ~labels[:8]
    learn = np.arange(15) >= 8
    sample = sample_of(truth, labels)
    values = describe(pixels(truth), BANDS)
    assert (iou(Trees(sample, folds, learn, 0).probabilities(values, folds, SIZE) > 0.5, truth) > 0.8).all()
    hidden = Sample(sample.values, sample.cloud, sample.known & learn[:, None])
    expected = Trees(sample, folds, learn, 0).probabilities(values, folds, SIZE)
    found = Trees(hidden, folds, np.ones(15, bool), 0).probabilities(values, folds, SIZE)
    np.testing.assert_array_equal(found, expected)


def test_trees_that_know_one_class_say_so():
    truth = np.zeros((4, SIZE, SIZE), bool)
    folds = np.arange(4) % 2
    opinion = TreeCommittee(sample_of(truth, truth), folds, np.ones(4, bool), 0)
    assert (opinion.views(pixels(truth), BANDS, np.arange(4)) == 0).all()
    assert (opinion.early_agreement == 1).all()


@pytest.mark.parametrize("kind", sorted(set(LABEL_ERRORS) - {"coarse"}))
def test_every_kind_of_error_is_suspected_and_mostly_named(kind):
    truth = clouds(24, seed=3, level=1 if kind == "artefact" else 0)
    labels = drawn(truth)
    labels[:4] = wrong_labels(truth[:4])[kind]
    # A model that has learned from such labels draws as they do.
    table = judge(evidence_of(truth, labels, outlined(truth)).assign(chip_id=[f"c{i}" for i in range(24)]))
    assert (table["suspicion"][:4] > 0.5).all()
    assert table["suspicion"][:4].min() > table["suspicion"][4:].max()
    named = table["reasons"][:4].str.split()
    assert named.map(lambda r: kind in r).mean() >= 0.5, named.tolist()


def test_a_coarse_outline_is_named():
    truth = clouds(4, seed=3)
    blobs = ndimage.gaussian_filter(truth.astype(float), (0, 9, 9)) > 0.4
    assert (strengths(evidence_of(truth, blobs))["coarse"] > 0.3).all()


@pytest.mark.parametrize("generous", [False, True])
def test_a_right_set_loses_hardly_a_label(generous):
    truth = np.concatenate([clouds(12, seed=1), clouds(12, seed=2, level=2), clouds(12, seed=4, level=-2)])
    evidence = evidence_of(truth, drawn(truth), None if generous else outlined(truth))
    table = judge(evidence.assign(chip_id=[f"c{i}" for i in range(36)]))
    assert (table["suspicion"] < 0.5).all()
    assert estimated_error_share(table) < 0.05


def test_features_are_finite_for_odd_masks():
    truth = clouds(6)
    labels = outlined(truth).astype(np.uint8)
    labels[0], labels[1], labels[2] = 0, 1, 255
    labels[3] = 0
    labels[3, 0, 0] = 1
    assert np.isfinite(features(evidence_of(truth, labels)).to_numpy()).all()


@given(st.floats(0.01, 0.5), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_share_of_errors_is_estimated_from_scores_alone(share, seed):
    rng = np.random.default_rng(seed)
    wrong = rng.random(4000) < share
    # Log-likelihood ratio of two normals two standard deviations apart, read at a prior of 20 %.
    ratio = 2 * (rng.normal(2 * wrong, 1) - 1)
    adapted, estimate = adjust_prior(1 / (1 + np.exp(-ratio) * 0.8 / 0.2), 0.2)
    assert estimate == pytest.approx(wrong.mean(), abs=0.05)
    assert adapted.mean() == pytest.approx(estimate, abs=1e-3)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[ChipStore, TrainingConfig, Path]:
    """A store of 40 synthetic chips of 64 pixels, two of them without a label, and a recipe for it."""
    folder = tmp_path_factory.mktemp("set")
    data = DataParams(chip_size=64)
    synthetic = SyntheticParams(locations=4, scenes=6, chips=40, unlabelled=0.05, label_errors=0.2)
    fetch(data, synthetic, 0, folder / "raw", folder / "truth")
    pack(folder / "raw", folder / "store", folder / "quarantine.csv", data)
    params = Params()
    config = TrainingConfig(
        0, data, params.folds, params.input, params.model, params.training, params.augmentation, params.compute
    )
    return ChipStore(folder / "store"), config, folder / "work"


def test_an_audit_judges_every_label_by_models_that_have_not_seen_its_scene(small, monkeypatch):
    monkeypatch.setattr("cloudcover.labels.trees.TREES", 6)
    store, config, work = small
    table = audit(store, config, AuditParams(folds=2, epochs=1), work)
    assert table["chip_id"].tolist() == sorted(store.index.loc[store.index["labelled"], "chip_id"])
    assert len(table) < len(store)
    assert table["suspicion"].between(0, 1).all()
    assert set(" ".join(table["reasons"]).split()) <= set(LABEL_ERRORS)
    scenes = store.index.loc[table["chip_id"], "scene"].to_numpy()
    assert (table.groupby(scenes)["audit_fold"].nunique() == 1).all()
    assert set(table["audit_fold"]) == {0, 1}
    models = {p.name: (p / "model.safetensors").stat().st_mtime_ns for p in work.glob("fold*")}
    assert len(models) in (2, 4)
    again = audit(store, config, AuditParams(folds=2, epochs=1), work)
    assert {p.name: (p / "model.safetensors").stat().st_mtime_ns for p in work.glob("fold*")} == models
    pd.testing.assert_frame_equal(again, table)


def test_cells_are_drawn_alike_in_any_order_and_unknown_ones_are_marked(small, tmp_path):
    store, _, _ = small
    chip_ids = store.index.loc[store.index["labelled"], "chip_id"].tolist()[:5]
    one, other = draw(store, chip_ids, 0, seed=1), draw(store, chip_ids[::-1], 0, seed=1)
    np.testing.assert_array_equal(one.values, other.values[::-1])
    np.testing.assert_array_equal(one.cloud, other.cloud[::-1])
    assert one.known.all()
    assert not draw(store, store.index.loc[~store.index["labelled"], "chip_id"].tolist(), 0, seed=1).known.any()


def test_the_second_pass_learns_from_what_the_first_did_not_reject(small, tmp_path, monkeypatch):
    store, config, _ = small
    learned = []

    def spy(task, rejected, pool):
        learned.append(set(rejected))
        chips = task.folds["chip_id"]
        truth = np.repeat(clouds(1), len(chips), axis=0)
        labels = truth.copy()
        labels[:4] = ~labels[:4]
        frame = evidence_of(truth, labels)
        frame = frame.drop(columns=[*spectral_evidence(pixels(truth), labels, BANDS, 0), "label_separability_auc"])
        return frame.assign(chip_id=chips.to_numpy(), audit_fold=task.folds["fold"].to_numpy())

    monkeypatch.setattr("cloudcover.labels.audit._pass", spy)
    table = audit(store, config, AuditParams(folds=2, epochs=1), tmp_path)
    assert learned == [set(), set(table["chip_id"][:4])]
    assert (table["suspicion"][:4] > 0.5).all()


def test_too_few_scenes_are_refused_with_what_to_change(small, tmp_path):
    store, config, _ = small
    with pytest.raises(AuditError, match=r"labels are of 6: lower audit.folds"):
        audit(store, config, AuditParams(folds=7, epochs=1), tmp_path)
