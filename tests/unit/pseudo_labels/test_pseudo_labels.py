"""Pseudo-labels: who is a candidate, which chips are accepted, and what changed since the round before."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from cloudcover.config.sections import PseudoLabelParams
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.masks.codec import decode_soft_labels, encode_predictions, encode_soft_labels, harden_soft_labels
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.pseudo_labels.churn import by_location
from cloudcover.pseudo_labels.label import TeacherError, candidates, confident_share, labels_of, pseudo_label
from cloudcover.pseudo_labels.quota import within_quota
from cloudcover.pseudo_labels.teachers import temperatures
from cloudcover.train.data import BatchLoader
from cloudcover.train.split import select
from helpers.training import make_store


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


def test_candidates_are_rejected_and_unlabelled_chips_outside_the_test_part():
    manifest = pd.DataFrame({"chip_id": ["c", "a", "b", "d"], "verdict": ["bad", "clean", "unlabelled", "bad"]})
    folds = pd.DataFrame({"chip_id": ["a", "b", "c", "d"], "fold": [0, 1, 2, TEST], "scene": "s"})
    assert candidates(manifest, folds) == ["b", "c"]


@pytest.fixture(scope="module")
def chips(tmp_path_factory):
    """Ten chips in two folds: labels 0 to 2 are inverted and rejected, 8 and 9 have no label; only to be read."""
    store = make_store(tmp_path_factory.mktemp("chips"), chips=10, unlabelled=2, wrong=3)
    index = store.index.reset_index(drop=True)
    folds = pd.DataFrame({"chip_id": index["chip_id"], "fold": np.arange(10) % 2, "scene": index["scene"]})
    verdicts = ["bad"] * 3 + ["clean"] * 5 + ["unlabelled"] * 2
    manifest = pd.DataFrame(
        {
            "chip_id": index["chip_id"], "verdict": verdicts, "label": ["none"] * 3 + ["human"] * 5 + ["none"] * 2,
            "source": "audit", "reason": "", "score": 0.5, "time": "",
        }
    )  # fmt: skip
    return store, manifest, folds


def predict(folder, store, folds, *certainties, logits=1.0):
    """Predictions on disk by a model per fold that takes bright pixels for cloud, with the certainty of that fold.

    They mean what they say: on chips with a trusted label, c003 to c007, as many pixels are wrong as they admit.
    """
    order = folds.sort_values("chip_id", ignore_index=True)
    sure = np.array(certainties)[order["fold"]][:, None, None]
    bright = store.chips(order["chip_id"].tolist())[:, 0] > 3000
    wrong = np.random.default_rng(0).random(bright.shape) > sure
    wrong[~order["chip_id"].between("c003", "c007")] = False
    folder.mkdir(parents=True)
    probabilities = np.where(bright ^ wrong, sure, 1 - sure)
    np.save(folder / "d4.npy", encode_predictions(expit(logit(probabilities) * logits)))
    tables.OOF.write(order.assign(row=order.index)[["chip_id", "row", "fold"]], folder / "index.csv")
    return OutOfFold([folder])


def relabel(chips, out, certainties=(0.97, 0.97), params=None, previous=None, logits=1.0):
    """A round's pseudo-labels, by models of these certainties, whose logits are scaled."""
    store, manifest, folds = chips
    predictions = predict(out.parent / f"{out.name}-oof", store, folds, *certainties, logits=logits)
    made = PseudoLabels(previous) if previous else None
    return pseudo_label(store, manifest, folds, predictions, "d4", params or rule(), 0, out, made)


def test_confident_models_replace_wrong_labels(chips, tmp_path):
    store, _, _ = chips
    table = relabel(chips, tmp_path / "round1").set_index("chip_id", drop=False)
    assert table["label"].tolist() == ["pseudo"] * 3 + ["human"] * 5 + ["pseudo"] * 2
    assert table["change"].tolist() == ["added"] * 3 + ["none"] * 5 + ["added"] * 2
    made = PseudoLabels(tmp_path / "round1" / "manifest.csv")
    np.testing.assert_array_equal(made.masks(["c000"])[0], store.chips(["c000"])[0, 0] > 3000)
    assert table.loc["c000", "agreement_iou"] < 0.01  # its label is inverted
    assert np.isnan(table.loc["c009", "agreement_iou"])
    assert made.accepted() == ["c000", "c001", "c002", "c008", "c009"]
    read = tables.ROUND.read(tmp_path / "round1" / "manifest.csv")
    pd.testing.assert_frame_equal(read, table.reset_index(drop=True), check_dtype=False)


@pytest.mark.parametrize("certainty", [0.75, 0.85, 0.9])
def test_twice_the_logits_change_no_pseudo_label(chips, tmp_path, certainty):
    tables_, arrays = [], []
    for number, logits in enumerate((1.0, 2.0, 0.5)):
        out = tmp_path / f"round{number}"
        params = rule(targets="soft", uncertain_pixels="ignore")
        tables_.append(relabel(chips, out, (certainty, certainty), params, logits=logits))
        arrays.append(np.load(out / "probabilities.npy").astype(int))
    assert tables_[0]["label"].eq("pseudo").any() == (certainty > 0.8)
    for table, array in zip(tables_[1:], arrays[1:], strict=True):
        assert table["label"].tolist() == tables_[0]["label"].tolist()
        assert abs(array - arrays[0]).max() <= 3  # of 254: bytes of other logits


def test_a_loss_that_never_gets_sure_is_taken_at_what_its_word_is_worth(chips, tmp_path):
    """The Lovász hinge ends at a logit of 1, p = 0.73, where 0.97 of the pixels are right: 0.9 is reached."""
    sharp = rule(pixel_confidence=0.9)
    kept = relabel(chips, tmp_path / "round1", (0.97, 0.97), sharp, logits=1 / logit(0.97))
    assert kept["label"].tolist() == ["pseudo"] * 3 + ["human"] * 5 + ["pseudo"] * 2


def test_no_teacher_is_calibrated_on_the_chips_that_it_relabels(chips, tmp_path):
    store, manifest, folds = chips
    predictions = predict(tmp_path / "oof", store, folds, 0.97, 0.75)
    found = temperatures(store, manifest, predictions, "d4")
    assert found == {0: pytest.approx(1, abs=0.08), 1: pytest.approx(1, abs=0.08)}
    levels = np.load(tmp_path / "oof/d4.npy")
    levels[folds["fold"] == 1] = encode_predictions(np.full(store.labels(["c001"]).shape, 0.5))[0]
    np.save(tmp_path / "oof/d4.npy", levels)
    other = temperatures(store, manifest, OutOfFold([tmp_path / "oof"]), "d4")
    assert other[1] == found[1]  # that of fold 1 follows from fold 0
    assert other[0] != found[0]


def test_a_round_that_accepts_next_to_nothing_says_so(chips, tmp_path, caplog):
    relabel(chips, tmp_path / "round1", (0.6, 0.6))
    assert "only 0 of 5 candidates are accepted, below 5 %" in caplog.text
    caplog.clear()
    relabel(chips, tmp_path / "round2")
    assert "under 5 %" not in caplog.text


def test_chips_without_an_edge_are_accepted_as_often_as_people_have_labelled_them():
    cover = [0.5, 0.3, 0.7, 1.0, 1.0, 1.0, 0.0, 0.0, 0.4]
    confident = [0.5, 0.6, 0.7, 0.99, 0.95, 0.97, 0.9, 0.8, 0.1]
    made = pd.DataFrame({"coverage_share": cover, "confident_share": confident, "accepted": [True] * 8 + [False]})
    kept = within_quota(made, pd.Series([0.5] * 6 + [1.0] * 4 + [0.0]))  # 2 full for 3 partly cloudy, half a clear one
    assert kept.tolist() == [True, True, True, True, False, True, False, False, False]
    assert not within_quota(made.assign(accepted=made["coverage_share"] >= 1), pd.Series([0.5, 1.0])).any()


def test_a_round_keeps_the_quota(chips, tmp_path):
    """No trusted label of this set is of nothing but cloud, so no such mask is accepted."""
    store, manifest, folds = chips
    predictions = predict(tmp_path / "oof", store, folds, 0.97, 0.97)
    levels = np.load(tmp_path / "oof/d4.npy")
    levels[9] = encode_predictions(np.full(levels[9].shape, 0.97))
    np.save(tmp_path / "oof/d4.npy", levels)
    accepted = {}
    for quota in (False, True):
        out = tmp_path / f"quota{quota}"
        table = pseudo_label(store, manifest, folds, predictions, "d4", rule(quota=quota), 0, out)
        accepted[quota] = table.loc[table["label"] == "pseudo", "chip_id"].tolist()
        assert (table["change"] == "added").sum() == len(accepted[quota])
    assert accepted == {False: ["c000", "c001", "c002", "c008", "c009"], True: ["c000", "c001", "c002", "c008"]}


def test_predictions_of_other_folds_are_refused_before_anything_is_written(chips, tmp_path):
    store, manifest, folds = chips
    predictions = predict(tmp_path / "oof", store, folds, 0.97, 0.97)
    swapped = folds.assign(fold=1 - folds["fold"])
    with pytest.raises(TeacherError, match=r"predictions of other folds for c000, c001, c002"):
        pseudo_label(store, manifest, swapped, predictions, "d4", rule(), 0, tmp_path / "round1")
    assert not (tmp_path / "round1").exists()


def test_no_chip_of_the_test_part_gets_a_pseudo_label(chips, tmp_path):
    store, manifest, folds = chips
    test = folds.assign(fold=folds["fold"].where(folds.index % 3 > 0, TEST))
    predictions = predict(tmp_path / "oof", store, folds, 0.97, 0.97)
    table = pseudo_label(store, manifest, test, predictions, "d4", rule(), 0, tmp_path / "round1")
    learned = set(table.loc[table["row"] >= 0, "chip_id"])
    assert learned == {"c001", "c002", "c008"}


def test_candidates_are_judged_again_in_each_round_and_the_churn_is_reported(chips, tmp_path, caplog):
    caplog.set_level("INFO")
    first = tmp_path / "round1" / "manifest.csv"
    relabel(chips, first.parent)
    second = relabel(chips, tmp_path / "round2", (0.98, 0.98), previous=first)
    chosen = second["row"] >= 0
    assert (second.loc[chosen, "change"] == "kept").all()
    assert (second.loc[chosen, "changed_pixels_share"] == 0).all()
    third = relabel(chips, tmp_path / "round3", (0.7, 0.7), previous=first)
    assert (third.loc[chosen, "change"] == "dropped").all()
    assert (
        "5 given labels are used, 3 rejected; accepted 0 of 5 pseudo-labels: 0 added, 0 kept, 5 dropped; "
        "the next round learns only from given labels" in caplog.text
    )


def test_a_label_that_is_trusted_again_drops_its_pseudo_label(chips, tmp_path):
    store, manifest, folds = chips
    first = tmp_path / "round1" / "manifest.csv"
    relabel(chips, first.parent)
    back = manifest.copy()
    back.loc[back["chip_id"] == "c000", ["verdict", "label"]] = "clean", "human"
    second = relabel((store, back, folds), tmp_path / "round2", previous=first).set_index("chip_id")
    assert second.loc["c000", ["label", "row", "change"]].tolist() == ["human", -1, "dropped"]
    assert second.loc["c002", "change"] == "kept"


def test_soft_labels_are_for_students_only(chips, tmp_path):
    store, _, folds = chips
    table = relabel(chips, tmp_path / "soft", params=rule(targets="soft"))
    hard = relabel(chips, tmp_path / "hard")
    pd.testing.assert_frame_equal(table, hard)  # all figures are of masks
    soft, masks = (PseudoLabels(tmp_path / kind / "manifest.csv") for kind in ("soft", "hard"))
    np.testing.assert_array_equal(soft.masks(["c000"]), masks.masks(["c000"]))
    cloud = masks.masks(["c000"]) == 1
    np.testing.assert_allclose(soft.targets(["c000"])[cloud], 0.97, atol=0.004)
    np.testing.assert_allclose(soft.targets(["c000"])[~cloud], 0.03, atol=0.004)

    split = select(table, folds, 1)
    for batch in BatchLoader(store, split.training, 4, seed=0, masks=soft):
        assert batch["target"].dtype == torch.float32
        human = (split.training.set_index("chip_id").loc[batch["chip_id"], "label"] == "human").to_numpy()
        given = store.labels([c for c, h in zip(batch["chip_id"], human, strict=True) if h])
        np.testing.assert_array_equal(batch["target"].numpy()[human], given)
        assert batch["pseudo"] == (~human).tolist()
    for batch in BatchLoader(store, split.validation, 4, masks=soft):
        assert batch["target"].dtype == torch.uint8


def test_a_folder_holds_one_kind_of_pseudo_labels(chips, tmp_path):
    store, manifest, folds = chips
    predictions = predict(tmp_path / "oof", store, folds, 0.97, 0.97)
    for targets, name in (("soft", "probabilities.npy"), ("hard", "masks.npy")):
        pseudo_label(store, manifest, folds, predictions, "d4", rule(targets=targets), 0, tmp_path / "round1")
        assert [path.name for path in (tmp_path / "round1").glob("*.npy")] == [name]


def test_a_round_is_counted_by_location(chips, tmp_path):
    store, _, folds = chips
    first = tmp_path / "round1" / "manifest.csv"
    relabel(chips, first.parent)
    # the model of fold 1 loses its certainty, and its masks turn round
    second = relabel(chips, tmp_path / "round2", (0.97, 0.3), previous=first)
    found = by_location(second, store.index["location"], 2).set_index("location")
    chosen = second[second["row"] >= 0].merge(folds, on="chip_id")
    joined = chosen.assign(location=store.index.loc[chosen["chip_id"], "location"].to_numpy())
    assert set(found.index) == set(joined["location"])
    for location, part in joined.groupby("location"):
        row = found.loc[location]
        assert (row["round"], row["candidate_chips"]) == (2, len(part))
        assert (row["kept_chips"], row["dropped_chips"]) == ((part["fold"] == 0).sum(), (part["fold"] == 1).sum())
        assert row["accepted_chips"] == row["kept_chips"]
        assert row["confident_share"] == pytest.approx((part["fold"] == 0).mean())
        assert row["agreement_share"] == pytest.approx(1 - part["changed_pixels_share"].mean())
    assert found["agreement_accepted_share"].dropna().tolist() == [1] * found["agreement_accepted_share"].count()
    assert found["agreement_refused_share"].dropna().tolist() == [0] * found["agreement_refused_share"].count()


def test_a_set_without_candidates_gives_an_empty_round(chips, tmp_path):
    store, manifest, folds = chips
    table = relabel((store, manifest.assign(verdict="clean", label="human"), folds), tmp_path / "round1")
    assert (table["label"] == "human").all()
    assert by_location(table, store.index["location"], 1).empty
    assert PseudoLabels(tmp_path / "round1" / "manifest.csv").table.empty
