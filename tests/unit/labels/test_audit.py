"""The audit: evidence combined into suspicions, and the judgement of small sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cloudcover.cli import main
from cloudcover.config.sections import DataParams
from cloudcover.data import tables
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.audit import AuditError, judge_labels
from cloudcover.labels.evidence import gather_evidence
from cloudcover.labels.score import (
    RELATIVE,
    adjust_prior,
    error_share_text,
    estimate_suspicion,
    estimated_error_share,
    score_labels,
    signs,
    strengths,
)
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.truth import TrueMasks
from cloudcover.predict.oof import predict_oof
from cloudcover.train.run import train
from cloudcover.train.split import all_labels, select
from helpers.labelled import BANDS, SIZE, Gathered, clouds, drawn, evidence_of, folds_of, outlined
from helpers.layouts import blob, write_tif
from helpers.training import recipe_of


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


@pytest.mark.parametrize("kind", sorted(set(LABEL_ERRORS) - {"coarse"}))
def test_every_kind_of_error_comes_first_and_is_mostly_named(kind):
    truth = clouds(24, seed=3, level=1 if kind == "artefact" else 0)
    labels = drawn(truth)
    labels[:4] = wrong_labels(truth[:4])[kind]
    # A model that has learned from such labels draws as they do.
    table = score_labels(evidence_of(truth, labels, outlined(truth)).assign(chip_id=[f"c{i}" for i in range(24)]))
    assert table["suspicion"][:4].min() > table["suspicion"][4:].max()
    if kind not in ("false_cloud", "stripes"):  # here a part of the chip only: first in the ranking, but not certain
        assert (table["suspicion"][:4] > 0.5).all()
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
    assert np.isfinite(signs(evidence_of(truth, labels)).to_numpy()).all()


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


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_many_wrong_labels_do_not_pass_for_usual(share):
    rng = np.random.default_rng(0)
    wrong = np.arange(1000) < share * 1000
    found = pd.DataFrame({name: np.zeros(1000) for name in RELATIVE})
    found["low_iou"] = np.clip(rng.normal(0.2, 0.1, 1000) + 0.5 * wrong, 0, 1)
    suspicion = estimate_suspicion(found, {"low_iou": 15}, -5, 0.15)
    assert suspicion.mean() == pytest.approx(share, abs=0.03)
    assert (suspicion[wrong] > 0.5).mean() > 0.9
    assert (suspicion[~wrong] < 0.5).mean() > 0.98


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
def out_of_fold(small, tmp_path_factory) -> Path:
    store, folder = small
    out = tmp_path_factory.mktemp("oof") / "fake"
    return write_out_of_fold(store, folder / "truth/masks.csv", folds_of(store), out)


def judged(store: ChipStore, gathered: Gathered, oof: Path, folds: pd.DataFrame, **options: object) -> pd.DataFrame:
    """The audit by what a folder predicts."""
    probabilities = partial(OutOfFold([oof]).probabilities, policy="vflip")
    return judge_labels(store, *gathered, probabilities, folds, **options)


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


def test_the_test_part_is_neither_judged_nor_learned_from(small, gathered, out_of_fold):
    store, _ = small
    folds = folds_of(store, test_scenes=5)  # the trees of the others learn faster
    evidence, votes = gather_evidence(store, folds, seed=0)
    hidden = set(folds.loc[folds["fold"] < 0, "chip_id"])
    assert hidden
    assert not hidden & set(evidence["chip_id"])
    alone, expected = gather_evidence(store, folds[folds["fold"] >= 0], seed=0)
    pd.testing.assert_frame_equal(evidence, alone)
    np.testing.assert_array_equal(votes, expected)
    assert not hidden & set(judged(store, (evidence, votes), out_of_fold, folds)["chip_id"])
    with pytest.raises(AuditError, match=r"in no fold or in the test part \(.*gather the evidence again"):
        judged(store, gathered, out_of_fold, folds)


def test_the_number_of_threads_changes_nothing(small, gathered, out_of_fold):
    store, _ = small
    folds = folds_of(store)
    evidence, votes = gather_evidence(store, folds, seed=0, threads=5)
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
    table = judge_labels(store, *gather_evidence(store, folds, seed=0), probabilities, folds)
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
        )


def test_a_share_that_is_not_determined_is_said(small, gathered, tmp_path, caplog):
    store, folder = small
    folds = folds_of(store)
    right = error_of(folder, folds["chip_id"]) == ""
    oof = write_out_of_fold(store, folder / "truth/masks.csv", folds, tmp_path / "oof")
    with caplog.at_level("INFO"):
        judged(store, gathered, oof, folds)
    assert "not determined" not in caplog.text
    with caplog.at_level("INFO"):
        evidence, votes = gathered
        among = evidence["chip_id"].isin(folds.loc[right, "chip_id"])
        table = judged(store, (evidence[among], votes), oof, folds[right])
    assert "estimated share of wrong labels: not determined" in caplog.text
    assert "check the first 50 with `cloudcover review`" in caplog.text
    assert error_share_text(table) == "not determined"
    assert table["suspicion"].nunique() > len(table) / 2


def test_the_command_prints_the_most_suspicious_labels_and_writes_them_all(small, out_of_fold, tmp_path):
    store, folder = small
    out = tmp_path / "audit.csv"
    arguments = ["audit", store.root, "--probabilities", out_of_fold, "--out", out, "--top", 5, "--threads", 1]
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    lines = [line.split() for line in result.stdout.splitlines()]
    names = [line[0] for line in lines[1:6]]
    assert (error_of(folder, names) != "").all()
    assert len(lines) == 7
    share = 100 * tables.AUDIT.read(out)["suspicion"].mean()
    assert result.stdout.splitlines()[-1].endswith(f"labels; estimated share of wrong labels: {share:.1f} %")
    written = tables.AUDIT.read(out)
    assert written["chip_id"].tolist() == sorted(store.index.loc[store.index["labelled"], "chip_id"])
    assert names == written.sort_values("suspicion", ascending=False)["chip_id"].head(5).tolist()


def test_the_command_replaces_no_table_of_another_kind(small, out_of_fold, tmp_path):
    (tmp_path / "mine.csv").write_text("chip_id,note\nc0,mine\n")
    arguments = ["audit", small[0].root, "--probabilities", out_of_fold, "--out", tmp_path / "mine.csv"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 1
    assert "mine.csv exists and is not a table of label audit" in result.output
    assert (tmp_path / "mine.csv").read_text() == "chip_id,note\nc0,mine\n"


def test_the_command_names_the_arrays_there_are(small, out_of_fold):
    store, _ = small
    arguments = ["audit", store.root, "--probabilities", out_of_fold, "--policy", "d4"]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2
    assert "has no d4.npy; it has ['vflip']" in " ".join(result.stderr.replace("│", "").split())


def test_networks_that_learned_from_the_given_labels_can_judge_them(small, gathered, tmp_path):
    store, folder = small
    labels, folds = all_labels(store.index, "human"), folds_of(store, 2)
    recipe = recipe_of(training={"steps": 30})
    models = {k: tmp_path / f"fold{k}" for k in (0, 1)}
    for k, model in models.items():
        train(recipe, store, select(labels, folds, k), model, tmp_path / "work", run="baseline", fold=k)
    predict_oof(store, folds, {k: [m] for k, m in models.items()}, ["vflip"], recipe.compute, tmp_path / "oof")
    table = judged(store, gathered, tmp_path / "oof", folds)
    wrong = error_of(folder, table["chip_id"]) != ""
    assert table["suspicion"][wrong].mean() > table["suspicion"][~wrong].mean() + 0.3
