"""Pseudo-labels: who is a candidate, which chips are accepted, and what changed since the round before."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import make_store

from cloudcover.config.sections import PseudoLabelParams
from cloudcover.data import tables
from cloudcover.masks.codec import decode_soft_labels, encode_soft_labels, harden_soft_labels
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.pseudo_labels.churn import by_location
from cloudcover.pseudo_labels.label import (
    TeacherError,
    candidates,
    check_teacher,
    confident_share,
    labels_of,
    pseudo_label,
)
from cloudcover.train.data import BatchLoader
from cloudcover.train.split import select


def rule(**changes):
    kept = {"pixel_confidence": 0.8, "chip_confidence": 0.8, "uncertain_pixels": "keep"}
    return PseudoLabelParams.model_validate({**kept, **changes})


@given(st.floats(0.51, 0.99), st.integers(0, 2**31))
def test_the_confident_share_is_the_originals_rule(confidence, seed):
    p = np.random.default_rng(seed).random((3, 8, 8), np.float32)
    known = np.random.default_rng(seed + 1).random((3, 8, 8)) > 0.2
    shares = confident_share(p, known, confidence)
    for i in range(3):
        values = p[i][known[i]]
        expected = np.mean((values > confidence) | (values < 1 - confidence)) if values.size else 0
        assert shares[i] == pytest.approx(expected)


def test_a_chip_without_known_pixels_is_not_confident():
    assert confident_share(np.ones((1, 4, 4), np.float32), np.zeros((1, 4, 4), bool), 0.9).tolist() == [0]


def test_uncertain_pixels_are_kept_or_ignored():
    p = np.array([[[0.05, 0.3, 0.6, 0.95, 0.99]]], np.float32)
    known = np.array([[[True, True, True, True, False]]])
    assert labels_of(p, known, rule()).tolist() == [[[0, 0, 1, 1, 255]]]
    assert labels_of(p, known, rule(uncertain_pixels="ignore")).tolist() == [[[0, 255, 255, 1, 255]]]
    assert labels_of(p, known, rule(targets="soft")).tolist() == [[[13, 76, 152, 241, 255]]]
    ignored = labels_of(p, known, rule(targets="soft", uncertain_pixels="ignore"))
    assert ignored.tolist() == [[[13, 255, 255, 241, 255]]]


def test_soft_labels_keep_probabilities_to_half_a_step_and_masks_follow_from_them():
    p = np.linspace(0, 1, 2001, dtype=np.float32)
    np.testing.assert_allclose(decode_soft_labels(encode_soft_labels(p)), p, atol=0.5 / 254 + 1e-6)
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(encode_soft_labels(decode_soft_labels(codes[:255])), codes[:255])
    np.testing.assert_array_equal(harden_soft_labels(codes[:255]), decode_soft_labels(codes[:255]) > 0.5)
    assert decode_soft_labels(codes)[255] == harden_soft_labels(codes)[255] == 255


def test_candidates_are_rejected_and_unlabelled_chips_that_the_student_is_not_judged_near():
    manifest = pd.DataFrame({"chip_id": ["c", "a", "b", "d"], "verdict": ["bad", "clean", "unlabelled", "bad"]})
    folds = pd.DataFrame({"chip_id": ["a", "b", "c", "d"], "fold": [0, 1, 2, 0], "scene": "s"})
    assert candidates(manifest, folds, 0).to_numpy().tolist() == [["b", 1, "unlabelled"], ["c", 2, "bad"]]
    assert candidates(manifest, folds, 2)["chip_id"].tolist() == ["b", "d"]


def card(**changes):
    values = {"run": "round1", "fold": 1, "chip_size": 64, "nodata": 0}
    return type("Card", (), values | changes)()


def test_a_model_that_has_seen_too_much_must_not_teach():
    check_teacher(card(), 1)
    with pytest.raises(TeacherError, match="round1, fold 1, has seen the labels of fold 0"):
        check_teacher(card(), 0)
    with pytest.raises(TeacherError, match="baseline may have learned from the rejected labels"):
        check_teacher(card(run="baseline"), 1)


class Teacher:
    """Stands in for a predictor: bright pixels are cloud with a given certainty."""

    batch = 4

    def __init__(self, certainty: float, fold: int) -> None:
        self.certainty = certainty
        self.card = card(fold=fold)

    def probabilities(self, dn, percentiles):
        return np.where(dn[:, 0] > 3000, self.certainty, 1 - self.certainty).astype(np.float32)


def teachers(*certainties):
    return {fold: Teacher(certainty, fold) for fold, certainty in enumerate(certainties)}


@pytest.fixture
def chips(tmp_path):
    store = make_store(tmp_path, chips=10, unlabelled=2, wrong=3)
    index = store.index.reset_index(drop=True)
    folds = pd.DataFrame({"chip_id": index["chip_id"], "fold": np.arange(10) % 2, "scene": index["scene"]})
    verdicts = ["bad"] * 3 + ["clean"] * 5 + ["unlabelled"] * 2
    return store, pd.DataFrame({"chip_id": index["chip_id"], "verdict": verdicts}), folds


def test_confident_teachers_replace_wrong_labels(chips, tmp_path):
    store, manifest, folds = chips
    table = pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(), tmp_path / "round1")
    assert table["accepted"].all()
    assert (table["change"] == "added").all()
    assert (table["fold"] != table["student"]).all()
    made_of = tmp_path / "round1" / "pseudo_labels.csv"
    made = PseudoLabels(made_of, 1)
    np.testing.assert_array_equal(made.masks(["c000"])[0], store.chips(["c000"])[0, 0] > 3000)
    by_chip = table.set_index("chip_id")
    assert by_chip.loc["c000", "agreement_iou"] < 0.01  # its label is inverted
    assert np.isnan(by_chip.loc["c009", "agreement_iou"])
    assert by_chip.loc["c000", "candidate"] == "bad"
    pd.testing.assert_frame_equal(tables.PSEUDO.read(made_of), table, check_dtype=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 0}, "has seen the labels of fold 1"),
        ({"run": "baseline"}, "may have learned from the rejected labels"),
    ],
)
def test_a_round_with_a_teacher_that_has_seen_too_much_is_refused_before_it_predicts(chips, tmp_path, change, message):
    several = teachers(0.97, 0.97)
    several[1].card = card(**{"fold": 1, **change})
    with pytest.raises(TeacherError, match=message):
        pseudo_label(*chips, several, rule(), tmp_path / "round1")
    assert not (tmp_path / "round1").exists()


def test_each_student_has_its_own_teacher(chips, tmp_path):
    store, manifest, folds = chips
    table = pseudo_label(store, manifest, folds.assign(fold=2), teachers(0.97, 0.6), rule(), tmp_path / "round1")
    assert table.groupby("student")["accepted"].mean().tolist() == [1, 0]
    assert table.groupby("chip_id")["student"].agg(list).tolist() == [[0, 1]] * 5
    assert PseudoLabels(tmp_path / "round1" / "pseudo_labels.csv", 1).table["row"].tolist() == [5, 6, 7, 8, 9]


def test_accepted_chips_are_judged_again_and_the_churn_is_told(chips, tmp_path, caplog):
    store, manifest, folds = chips
    caplog.set_level("INFO")
    first = tmp_path / "round1" / "pseudo_labels.csv"
    pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(), first.parent)
    second = pseudo_label(store, manifest, folds, teachers(0.98, 0.98), rule(), tmp_path / "round2", first)
    assert (second["change"] == "kept").all()
    assert (second["changed_pixels_share"] == 0).all()
    third = pseudo_label(store, manifest, folds, teachers(0.7, 0.7), rule(), tmp_path / "round3", first)
    assert (third["change"] == "dropped").all()
    assert (
        "accepted 0 of 5 pseudo-labels: 0 added, 0 kept, 5 dropped; the next round learns from clean labels only"
        in caplog.text
    )


def test_soft_labels_are_for_students_only(chips, tmp_path):
    store, manifest, folds = chips
    table = pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(targets="soft"), tmp_path / "soft")
    hard = pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(), tmp_path / "hard")
    pd.testing.assert_frame_equal(table, hard)  # what is told of them is measured on masks
    soft, masks = (PseudoLabels(tmp_path / kind / "pseudo_labels.csv", 1) for kind in ("soft", "hard"))
    np.testing.assert_array_equal(soft.masks(["c000"]), masks.masks(["c000"]))
    cloud = masks.masks(["c000"]) == 1
    np.testing.assert_allclose(soft.targets(["c000"])[cloud], 0.97, atol=0.002)
    np.testing.assert_allclose(soft.targets(["c000"])[~cloud], 0.03, atol=0.002)

    selection = select(manifest, folds, 1, soft.table.reset_index(drop=True))
    for batch in BatchLoader(store, selection.training, 4, seed=0, masks=soft):
        assert batch["target"].dtype == torch.float32
        human = (selection.training.set_index("chip_id").loc[batch["chip_id"], "label"] == "human").to_numpy()
        given = store.labels([c for c, h in zip(batch["chip_id"], human, strict=True) if h])
        np.testing.assert_array_equal(batch["target"].numpy()[human], given)
    for batch in BatchLoader(store, selection.validation, 4, masks=soft):
        assert batch["target"].dtype == torch.uint8


def test_a_folder_holds_one_kind_of_pseudo_labels(chips, tmp_path):
    store, manifest, folds = chips
    for targets, name in (("soft", "probabilities.npy"), ("hard", "masks.npy")):
        pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(targets=targets), tmp_path)
        assert [path.name for path in tmp_path.glob("*.npy")] == [name]


def test_a_round_is_told_by_location(chips, tmp_path):
    store, manifest, folds = chips
    first = tmp_path / "round1" / "pseudo_labels.csv"
    pseudo_label(store, manifest, folds, teachers(0.97, 0.97), rule(), first.parent)
    inverted = teachers(0.97, 0.3)  # student 1 drops all its chips, whose masks turn round
    second = pseudo_label(store, manifest, folds, inverted, rule(), tmp_path / "round2", first)
    found = by_location(second, store.index["location"], 2).set_index("location")
    joined = second.assign(location=store.index.loc[second["chip_id"], "location"].to_numpy())
    assert set(found.index) == set(joined["location"])
    for location, part in joined.groupby("location"):
        row = found.loc[location]
        assert (row["round"], row["candidate_chips"]) == (2, len(part))
        assert (row["kept_chips"], row["dropped_chips"]) == ((part["student"] == 0).sum(), (part["student"] == 1).sum())
        assert row["accepted_chips"] == row["kept_chips"]
        assert row["confident_share"] == pytest.approx((part["student"] == 0).mean())
        assert row["agreement_share"] == pytest.approx(1 - part["changed_pixels_share"].mean())
    assert found["agreement_accepted_share"].dropna().tolist() == [1] * found["agreement_accepted_share"].count()
    assert found["agreement_refused_share"].dropna().tolist() == [0] * found["agreement_refused_share"].count()


def test_a_set_without_candidates_gives_an_empty_round(chips, tmp_path):
    store, manifest, folds = chips
    table = pseudo_label(
        store, manifest.assign(verdict="clean"), folds, teachers(0.9, 0.9), rule(), tmp_path / "round1"
    )
    assert table.empty
    assert by_location(table, store.index["location"], 1).empty
    assert PseudoLabels(tmp_path / "round1" / "pseudo_labels.csv", 0).table.empty
