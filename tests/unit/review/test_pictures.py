"""Pictures of chips, and the predictions that are shown."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.review.pictures import LABEL, PREDICTION, UNKNOWN_LABEL, Pictures
from cloudcover.review.predictions import Predictions, PredictionsError, newest
from cloudcover.review.server import ReviewError, default_reviewer, load
from cloudcover.review.verdicts import Verdicts
from helpers.review_set import SIZE, make_set


def test_chips_of_a_scene_share_one_stretch_and_clouds_are_white(reviewed: Path) -> None:
    pictures = Pictures(ChipStore(reviewed / "store"), None)
    image = np.asarray(Image.open(io.BytesIO(pictures.colours("c000", "true"))))
    cloud = pictures.store.labels(["c000"])[0] == 1
    assert image.shape == (SIZE, SIZE, 3)
    assert image[cloud].mean() > 220
    assert image[~cloud].mean() < 80
    same, other = pictures.colours("c006", "true"), pictures.colours("c001", "true")
    assert pictures._tables.cache_info().misses == 2
    assert same != other


def test_masks_hold_label_unknown_and_prediction(reviewed: Path) -> None:
    store = ChipStore(reviewed / "store")
    pictures = Pictures(store, Predictions(newest(reviewed / "oof"), SIZE))
    codes = np.frombuffer(pictures.masks("c000"), np.uint8).reshape(SIZE, SIZE)
    label = store.labels(["c000"])[0]
    assert np.array_equal(codes & LABEL != 0, label == 1)
    assert np.array_equal(codes & UNKNOWN_LABEL != 0, label == 255)
    truth = np.load(reviewed / "oof/round1/none.npy")[0] > 0
    assert np.array_equal(codes & PREDICTION != 0, truth[:, ::-1])  # round 2 is newer
    assert not np.frombuffer(Pictures(store, None).masks("c000"), np.uint8).max() & PREDICTION


def test_agreement_leaves_unknown_pixels_out(reviewed: Path) -> None:
    store = ChipStore(reviewed / "store")
    pictures = Pictures(store, Predictions([reviewed / "oof/round1"], SIZE))
    predicted = np.load(reviewed / "oof/round1/none.npy")[0] > 0
    assert (predicted & (store.labels(["c000"])[0] == 255)).any()  # or the test would show nothing
    assert pictures.agreement("c000") == {"iou": 1.0, "predicted_share": round(float(predicted.mean()), 4)}


def test_thumbnails_are_small(tmp_path: Path) -> None:
    make_set(tmp_path, chips=4, size=544)
    pictures = Pictures(ChipStore(tmp_path / "store"), None)
    image = Image.open(io.BytesIO(pictures.colours("c000", "true", small=True)))
    assert max(image.size) <= 256
    assert abs(len(pictures.masks("c000", small=True)) ** 0.5 - image.width) <= 1


def test_the_newest_round_is_shown_then_the_final_members_then_what_there_is(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") == []
    for run, expected in (
        ("baseline", ["baseline"]),
        ("final/a", ["final/a"]),
        ("final/b", ["final/a", "final/b"]),
        ("round2", ["round2"]),
        ("round10", ["round10"]),
    ):
        tables.OOF.write(tables.OOF.empty(), tmp_path / run / "index.csv")
        assert newest(tmp_path) == [tmp_path / name for name in expected]
    assert newest(tmp_path / "baseline") == [tmp_path / "baseline"]


def test_predictions_of_another_size_are_refused(reviewed: Path) -> None:
    with pytest.raises(PredictionsError, match=r"round2 is of 64 x 64 pixels, but the store's are 512"):
        Predictions(newest(reviewed / "oof"), 512)


def test_a_store_without_labels_cannot_be_reviewed(tmp_path: Path) -> None:
    make_set(tmp_path, chips=3, unlabelled=3)
    with Verdicts(tmp_path / "v.csv", "Ada") as verdicts, pytest.raises(ReviewError, match="nothing to review"):
        load(tmp_path / "store", None, [], verdicts)


def test_the_reviewer_is_gits_user_name_or_the_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, "Grace Hopper\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    assert default_reviewer() == "Grace Hopper"
    done.stdout = ""
    monkeypatch.setenv("LOGNAME", "grace")
    assert default_reviewer() == "grace"
