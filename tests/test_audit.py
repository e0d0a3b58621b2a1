"""The label audit: each piece of evidence, their combination, and the audit of small sets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from click.testing import CliRunner
from conftest import blob, write_tif
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from threadpoolctl import threadpool_info, threadpool_limits

from cloudcover.cli import main
from cloudcover.config.params import Params
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import AuditError, judge_labels
from cloudcover.labels.disagreement import committee_evidence, confident_levels, model_evidence, self_confidence
from cloudcover.labels.evidence import EvidenceError, gather_evidence
from cloudcover.labels.geometry import axis_edge, best_match, best_shift, geometry_evidence, reduce, straight_edge
from cloudcover.labels.score import adjust_prior, estimated_error_share, features, score_labels, strengths
from cloudcover.labels.spectral import haze, separability, spectral_evidence
from cloudcover.labels.trees import Sample, TreeCommittee, Trees, cells, describe, draw, enlarge, one_core_each
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.overlap import iou
from cloudcover.masks.truth import TrueMasks
from cloudcover.predict.oof import predict_oof
from cloudcover.sources.fetch import fetch
from cloudcover.train.run import train
from cloudcover.train.split import all_labels, select

BANDS = ["B02", "B03", "B04", "B08"]
SIZE = 128
LEVELS = (0.8, 0.8)
Gathered = tuple[pd.DataFrame, np.ndarray]


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


@pytest.fixture
def pool():
    with one_core_each(2) as pool:
        yield pool


def test_trees_judge_by_what_others_taught_them_and_learn_wrong_labels_last(pool):
    truth = clouds(24)
    labels = truth.copy()
    labels[:2] = ~labels[:2]
    folds = np.arange(24) % 3
    trees = Trees(sample_of(truth, labels), folds, 0, pool)
    p = enlarge(trees.probabilities(describe(pixels(truth), BANDS), folds), SIZE)
    assert p.shape == truth.shape
    assert np.mean(iou(p > 0.5, truth) > 0.8) > 0.9
    early = trees.early_agreement(pool)
    assert early[:2].max() < early[2:].min() - 0.2
    again = Trees(sample_of(truth, labels), folds, 0, pool)
    np.testing.assert_array_equal(enlarge(again.probabilities(describe(pixels(truth), BANDS), folds), SIZE), p)


def test_trees_learn_nothing_from_unknown_cells(pool):
    truth = clouds(15)
    labels, folds = truth.copy(), np.arange(15) % 3
    labels[:8] = ~labels[:8]
    sample = sample_of(truth, labels)
    values = describe(pixels(truth), BANDS)
    inverted = sample.known & (np.arange(15) < 8)[:, None]
    hidden = Sample(sample.values, sample.cloud, sample.known & ~inverted)
    found = Trees(hidden, folds, 0, pool).probabilities(values, folds)
    assert (iou(enlarge(found, SIZE) > 0.5, truth) > 0.8).all()
    other = Sample(np.where(inverted[..., None], 0, sample.values), sample.cloud ^ inverted, hidden.known)
    np.testing.assert_array_equal(Trees(other, folds, 0, pool).probabilities(values, folds), found)


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


@pytest.mark.parametrize("kind", sorted(set(LABEL_ERRORS) - {"coarse"}))
def test_every_kind_of_error_is_suspected_and_mostly_named(kind):
    truth = clouds(24, seed=3, level=1 if kind == "artefact" else 0)
    labels = drawn(truth)
    labels[:4] = wrong_labels(truth[:4])[kind]
    # A model that has learned from such labels draws as they do.
    table = score_labels(evidence_of(truth, labels, outlined(truth)).assign(chip_id=[f"c{i}" for i in range(24)]))
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
    table = score_labels(evidence.assign(chip_id=[f"c{i}" for i in range(36)]))
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
def small(tmp_path_factory) -> tuple[ChipStore, Path]:
    """A store of 60 synthetic chips of 64 pixels, some without a label, and the folder of the set."""
    folder = tmp_path_factory.mktemp("set")
    data = DataParams(chip_size=64)
    synthetic = SyntheticParams(locations=5, scenes=8, chips=60, unlabelled=0.05, label_errors=0.2)
    fetch(data, synthetic, 0, folder / "raw", folder / "truth")
    pack(folder / "raw", folder / "store", folder / "quarantine.csv", data)
    return ChipStore(folder / "store"), folder


def folds_of(store: ChipStore, number: int = 3, test_scenes: int = 0) -> pd.DataFrame:
    """`tables.FOLDS` of whole scenes, the first ones in the test part."""
    scenes = {scene: i for i, scene in enumerate(sorted(store.index["scene"].unique()))}
    place = store.index["scene"].map(scenes)
    fold = (place % number).where(place >= test_scenes, -1)
    return tables.FOLDS.check(store.index[["chip_id", "scene"]].assign(fold=fold), "test")


def error_of(folder: Path, chip_ids: Sequence[str]) -> np.ndarray:
    """The kind of error of each label, "" for right ones."""
    return tables.TRUTH.read(folder / "truth/masks.csv").set_index("chip_id")["error"].loc[list(chip_ids)].to_numpy()


def write_out_of_fold(store: ChipStore, truth: Path, folds: pd.DataFrame, out: Path, noise: float = 0.6) -> Path:
    """The files of `predict_oof` as a model would leave them that sees the true masks and doubts some pixels."""
    index = folds.sort_values("chip_id", ignore_index=True)
    masks, rng = TrueMasks(truth), np.random.default_rng(0)
    true = masks.targets(index["chip_id"].tolist()) == 1
    doubt = ndimage.gaussian_filter(rng.normal(size=true.shape), (0, 3, 3))
    logits = 4 * ndimage.gaussian_filter(2 * true - 1.0, (0, 1, 1)) + noise * doubt / doubt.std()
    out.mkdir(parents=True)
    np.save(out / "vflip.npy", np.rint(255 / (1 + np.exp(-logits))).astype(np.uint8))
    tables.OOF.write(index.assign(row=index.index)[["chip_id", "row", "fold"]], out / "index.csv")
    return out


@pytest.fixture(scope="module")
def out_of_fold(small) -> Path:
    store, folder = small
    return write_out_of_fold(store, folder / "truth/masks.csv", folds_of(store), folder / "oof/fake")


@pytest.fixture(scope="module")
def gathered(small) -> Gathered:
    store, _ = small
    return gather_evidence(store, folds_of(store), 0, seed=0, threads=2)


def judged(store: ChipStore, gathered: Gathered, oof: Path, folds: pd.DataFrame, **options: object) -> pd.DataFrame:
    """The audit by what a folder predicts."""
    probabilities = partial(OutOfFold([oof]).probabilities, policy="vflip")
    return judge_labels(store, *gathered, probabilities, folds, nodata=0, **options)


def test_an_audit_finds_wrong_labels_by_anyones_probabilities(small, gathered, out_of_fold):
    store, folder = small
    table = judged(store, gathered, out_of_fold, folds_of(store))
    assert table["chip_id"].tolist() == sorted(store.index.loc[store.index["labelled"], "chip_id"])
    assert len(table) < len(store)
    wrong = error_of(folder, table["chip_id"]) != ""
    suspected = table["suspicion"].to_numpy() > 0.5
    assert wrong.sum() >= 8
    assert suspected[wrong].mean() > 0.8
    assert suspected[~wrong].mean() < 0.1
    assert set(" ".join(table["reasons"]).split()) <= set(LABEL_ERRORS)
    assert table["fold"].tolist() == folds_of(store).set_index("chip_id").loc[table["chip_id"], "fold"].tolist()


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
    _, after = gather_evidence(ChipStore(tmp_path / "store"), folds_of(store), 0, seed=0)
    np.testing.assert_array_equal(after[rows, 0], before[rows, 0])
    assert (after[rows, 1] != before[rows, 1]).any()


def test_the_test_part_is_neither_judged_nor_learned_from(small, gathered, out_of_fold):
    store, _ = small
    folds = folds_of(store, test_scenes=2)
    evidence, votes = gather_evidence(store, folds, 0, seed=0)
    hidden = set(folds.loc[folds["fold"] < 0, "chip_id"])
    assert hidden
    assert not hidden & set(evidence["chip_id"])
    alone, expected = gather_evidence(store, folds[folds["fold"] >= 0], 0, seed=0)
    pd.testing.assert_frame_equal(evidence, alone)
    np.testing.assert_array_equal(votes, expected)
    assert not hidden & set(judged(store, (evidence, votes), out_of_fold, folds)["chip_id"])
    with pytest.raises(AuditError, match=r"in no fold or in the test part \(.*gather the evidence again"):
        judged(store, gathered, out_of_fold, folds)


def test_the_number_of_threads_changes_nothing(small, gathered, out_of_fold):
    store, _ = small
    folds = folds_of(store)
    evidence, votes = gather_evidence(store, folds, 0, seed=0, threads=5)
    pd.testing.assert_frame_equal(evidence, gathered[0])
    np.testing.assert_array_equal(votes, gathered[1])
    one, five = (judged(store, gathered, out_of_fold, folds, threads=threads) for threads in (1, 5))
    pd.testing.assert_frame_equal(one, five)


def test_the_order_of_rows_changes_nothing(small, gathered, out_of_fold):
    store, _ = small
    folds, (evidence, votes) = folds_of(store), gathered
    straight = judged(store, gathered, out_of_fold, folds)
    turned = judged(store, (evidence[::-1], votes), out_of_fold, folds[::-1])
    pd.testing.assert_frame_equal(straight, turned)


def test_judging_again_averages_the_figures_of_both_models(small, gathered, out_of_fold, tmp_path):
    store, folder = small
    folds = folds_of(store)
    other = write_out_of_fold(store, folder / "truth/masks.csv", folds, tmp_path / "oof", noise=3)
    first, second = (judged(store, gathered, oof, folds) for oof in (out_of_fold, other))
    both = judged(store, gathered, other, folds, previous=first)
    np.testing.assert_allclose(both["oof_iou"], (first["oof_iou"] + second["oof_iou"]) / 2)
    np.testing.assert_allclose(both["haze_auc"], first["haze_auc"])
    assert first["label_separability_auc"].isna().any()
    tables.AUDIT.write(first, tmp_path / "audit.csv")
    read = tables.AUDIT.read(tmp_path / "audit.csv")
    pd.testing.assert_frame_equal(judged(store, gathered, other, folds, previous=read), both)
    with pytest.raises(AuditError, match=r"the previous audit lacks 1 chips"):
        judged(store, gathered, other, folds, previous=first[1:])
    with pytest.raises(AuditError, match="the previous audit lacks the columns oof_iou; run it again with this"):
        judged(store, gathered, other, folds, previous=first.drop(columns="oof_iou"))


def test_pixels_without_data_count_for_nothing(tmp_path):
    root, rng = tmp_path / "raw", np.random.default_rng(0)
    rows = []
    for number in range(8):
        mask = blob(rng, 64, 0.5)
        label = mask.astype(np.uint8)
        for k, band in enumerate(BANDS):
            dn = np.where(mask, 5000, 900 + 300 * k).astype(np.uint16)
            dn[:, :20] = 0
            write_tif(root / "train_features" / f"c{number}" / f"{band}.tif", dn)
        label[:, :20] = number % 2
        write_tif(root / "train_labels" / f"c{number}.tif", label)
        place, time = f"p{number % 4}", "2020-01-01T00:00:00Z"
        rows.append([f"c{number}", place, time, f"train_features/c{number}"])
    columns = ["chip_id", "location", "datetime", "cloudpath"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "train_metadata.csv", index=False)
    write_file_table(root, "test")
    pack(root, tmp_path / "store", tmp_path / "quarantine.csv", DataParams(chip_size=64))
    store = ChipStore(tmp_path / "store")
    labels = store.labels(store.index["chip_id"].tolist())
    right = dict(zip(store.index["chip_id"], (labels == 1).astype(np.float32), strict=True))

    def probabilities(chip_ids: Sequence[str]) -> np.ndarray:
        seen = np.stack([right[c] for c in chip_ids])
        seen[:, :, :20] = 1 - seen[:, :, :20]
        return seen

    folds = folds_of(store, 2)
    table = judge_labels(store, *gather_evidence(store, folds, 0, seed=0), probabilities, folds, nodata=0)
    assert (table["model_iou"] == 1).all()


def test_votes_of_other_evidence_are_refused(small, gathered, out_of_fold):
    store, _ = small
    evidence, votes = gathered
    with pytest.raises(AuditError, match=rf"row {len(votes) - 1} of the tree votes, which have 5; gather the evidence"):
        judged(store, (evidence, votes[:5]), out_of_fold, folds_of(store))


def test_probabilities_of_another_size_are_refused(small, gathered):
    store, _ = small
    with pytest.raises(AuditError, match=r"probabilities have the shape \(4, 32, 32\), but the labels \(4, 64, 64\)"):
        judge_labels(
            store,
            *gathered,
            lambda chip_ids: np.zeros((len(chip_ids), 32, 32), np.float32),
            folds_of(store),
            nodata=0,
        )


def test_labels_of_one_scene_or_none_are_refused_with_what_to_change(small):
    store, _ = small
    folds = folds_of(store)
    one = store.index.loc[store.index["labelled"], "scene"].iloc[0]
    with pytest.raises(EvidenceError, match=f"labels are of the scene {one}.*add labels of another scene"):
        gather_evidence(store, folds[folds["scene"] == one], 0, seed=0)
    with pytest.raises(EvidenceError, match=r"none of the 0 chips outside the test part has a label"):
        gather_evidence(store, folds.assign(fold=-1), 0, seed=0)


def test_a_share_that_is_not_determined_is_said(small, gathered, tmp_path, caplog):
    store, folder = small
    folds = folds_of(store)
    right = error_of(folder, folds["chip_id"]) == ""
    oof = write_out_of_fold(store, folder / "truth/masks.csv", folds, tmp_path / "oof")
    with caplog.at_level("INFO"):
        judged(store, gathered, oof, folds)
    assert "not determined" not in caplog.text
    with caplog.at_level("INFO"):
        table = judged(store, gather_evidence(store, folds[right], 0, seed=0), oof, folds[right])
    assert "the share of wrong labels is not determined" in caplog.text
    assert table["suspicion"].nunique() > len(table) / 2


def test_evidence_and_audit_need_no_torch():
    program = "import sys; import cloudcover.labels.audit, cloudcover.labels.evidence; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_command_prints_the_most_suspicious_labels_and_writes_them_all(small, out_of_fold, tmp_path):
    store, folder = small
    out = tmp_path / "audit.csv"
    arguments = ["audit", store.root, "--probabilities", out_of_fold, "--out", out, "--top", 5, "--threads", 1]
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    lines = [line.split() for line in result.stdout.splitlines()]
    names = [line[0] for line in lines[1:6]]
    assert (error_of(folder, names) != "").all()
    assert len(lines) == 7
    written = tables.AUDIT.read(out)
    assert written["chip_id"].tolist() == sorted(store.index.loc[store.index["labelled"], "chip_id"])
    assert names == written.sort_values("suspicion", ascending=False)["chip_id"].head(5).tolist()


def test_the_command_names_the_arrays_there_are(small, out_of_fold):
    store, _ = small
    arguments = ["audit", store.root, "--probabilities", out_of_fold, "--policy", "d4"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2
    assert "has no d4.npy; it has ['vflip']" in " ".join(result.stderr.replace("│", "").split())


def test_networks_that_learned_from_the_given_labels_can_judge_them(small, gathered, tmp_path):
    store, folder = small
    params, folds = Params(), folds_of(store, 2)
    data, training = DataParams(chip_size=64), params.training.model_copy(update={"steps": 30})
    config = TrainingConfig.of(params.model_copy(update={"data": data, "training": training}))
    labels = all_labels(store.index, "human")
    models = {k: tmp_path / f"fold{k}" for k in (0, 1)}
    with threadpool_limits(1):
        for k, model in models.items():
            train(config, store, select(labels, folds, k), model, tmp_path / "work", run="baseline", fold=k)
        predict_oof(store, folds, {k: [m] for k, m in models.items()}, ["vflip"], params.compute, tmp_path / "oof")
    table = judged(store, gathered, tmp_path / "oof", folds)
    wrong = error_of(folder, table["chip_id"]) != ""
    assert table["suspicion"][wrong].mean() > table["suspicion"][~wrong].mean() + 0.3


def test_cells_are_drawn_alike_in_any_order_and_unknown_ones_are_marked(small):
    store, _ = small
    chip_ids = store.index.loc[store.index["labelled"], "chip_id"].tolist()[:5]
    one, other = draw(store, chip_ids, 0, seed=1), draw(store, chip_ids[::-1], 0, seed=1)
    np.testing.assert_array_equal(one.values, other.values[::-1])
    np.testing.assert_array_equal(one.cloud, other.cloud[::-1])
    assert one.known.all()
    assert not draw(store, store.index.loc[~store.index["labelled"], "chip_id"].tolist(), 0, seed=1).known.any()
