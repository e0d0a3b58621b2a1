"""The audit's benchmark: families of noise, real chips among synthetic ones, and the fit of the weights."""

from __future__ import annotations

import audit_fit
import audit_noise
import audit_real
import numpy as np
import pandas as pd
import pytest
import rasterio

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import differences
from helpers.labelled import clouds, drawn, evidence_of, outlined
from helpers.layouts import write_tif
from helpers.paths import SHARED

DATA = DataParams(chip_size=64)
SET = SyntheticParams(locations=4, scenes=10, chips=20, unlabelled=0)


@pytest.fixture(scope="module")
def labels_of(tmp_path_factory):
    """A function that makes the set of a family: its labels and kinds of error, by chip."""
    made = {}

    def make(family: str) -> tuple[dict[str, np.ndarray], pd.Series]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            errors = audit_noise.make(family, DATA, SET, 4, folder / "raw", folder / "truth")
            assert not differences(folder / "raw", tables.FILES.read(folder / "raw/files.csv"))
            masks = {}
            for chip_id in errors.index:
                with rasterio.open(folder / f"raw/train_labels/{chip_id}.tif") as file:
                    masks[chip_id] = file.read(1) == 1
            made[family] = masks, errors
        return made[family]

    return make


@pytest.mark.parametrize("family", ["thin", "style", "boxes", "shift", "scene_failed"])
def test_a_family_changes_labels_in_its_own_way(labels_of, family):
    (given, errors), (right, _) = labels_of(family), labels_of("none")
    changed = {c for c in given if (given[c] != right[c]).any()}
    assert changed
    assert set(errors[errors == family].index) <= changed
    assert set(errors) <= {family, ""}
    if family == "boxes":
        assert len(changed) < len(given) / 3
    else:
        scenes = {c.split("c")[0] for c in changed}
        share = {"thin": 0.3, "style": 0.5, "shift": 0.3, "scene_failed": 0.2}[family]
        assert len(scenes) <= round(share * SET.scenes)
    grown = {c: int(given[c].sum()) - int(right[c].sum()) for c in changed}
    if family in ("style", "boxes"):
        assert all(number > 0 for number in grown.values())
    if family == "thin":
        assert all(number < 0 for number in grown.values())


def test_a_set_without_noise_has_no_wrong_label(labels_of):
    assert (labels_of("none")[1] == "").all()


@pytest.fixture
def real(tmp_path):
    """Three real chips of 128 pixels, two of them with votes."""
    folder, ids = tmp_path / "real", ["aaaa", "bbbb", "cccc"]
    for chip_id, mask in zip(ids, clouds(3), strict=True):
        for band in DATA.bands:
            write_tif(folder / "train_features" / chip_id / f"{band}.tif", np.where(mask, 5000, 800).astype(np.uint16))
        write_tif(folder / "train_labels" / f"{chip_id}.tif", mask.astype(np.uint8))
    rows = [[c, "place", "2020-01-01T00:00:00Z", f"train_features/{c}"] for c in ids]
    tables.METADATA.write(pd.DataFrame(rows, columns=list(tables.METADATA.columns)), folder / "train_metadata.csv")
    (folder / "label_votes.csv").write_text("chip_id,votes\naaaa,4\nbbbb,1\n")
    return folder


def test_real_chips_join_a_set_averaged_to_its_size(real, tmp_path):
    raw = tmp_path / "raw"
    audit_noise.make("none", DATA, SET, 4, raw, tmp_path / "truth")
    said = audit_real.add(real, raw, DATA.chip_size)
    assert said.to_dict() == {"aaaa": "rejected", "bbbb": "believable", "cccc": "unknown"}
    assert not differences(raw, tables.FILES.read(raw / "files.csv"))
    assert set(said.index) < set(tables.METADATA.read(raw / "train_metadata.csv")["chip_id"])
    path = "train_features/aaaa/B02.tif"
    with rasterio.open(real / path) as large, rasterio.open(raw / path) as small:
        assert small.shape == (64, 64)
        assert small.transform.a == 2 * large.transform.a
        assert small.bounds == large.bounds
        np.testing.assert_allclose(small.read(1), large.read(1).reshape(64, 2, 64, 2).mean(axis=(1, 3)), atol=1)


def test_without_votes_all_real_labels_are_unknown_and_only_ranked(real):
    (real / "label_votes.csv").unlink()
    assert set(audit_real.opinions(real)["error"]) == {"unknown"}
    table = pd.DataFrame({"chip_id": ["aaaa", "bbbb", "s000"], "suspicion": [0.1, 0.9, 1], "error": "unknown"})
    lines = audit_real.ranking(real, table.assign(model_iou=0.5, softmin=0.5, reasons="")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["bbbb", "aaaa"]


def test_ways_are_held_against_the_reviewers():
    error = pd.Series(["rejected", "rejected", "believable", "none", "swapped"], index=list("abcde"))
    scores = {"audit": pd.Series([0.9, 0.2, 0.8, 0.1, 1.0], error.index), "low_iou": pd.Series(0.0, error.index)}
    rejected = {name: score > 0.5 for name, score in scores.items()}
    figures = audit_real.measure(error, scores, rejected)
    assert (figures["recall_rejected"], figures["false_alarms"]) == (0.5, 1)
    assert (figures["recall_rejected_low_iou"], figures["false_alarms_low_iou"]) == (0, 0)
    assert figures["ap_real"] == figures["ap_among"] == pytest.approx((1 + 2 / 3) / 2)


def test_weights_are_fitted_and_the_module_is_written():
    sets = {}
    for seed in (1, 2):
        truth = clouds(24, seed=seed)
        labels = drawn(truth)
        labels[:4] = ~labels[:4]
        table = evidence_of(truth, labels, outlined(truth))
        sets[seed] = [table.assign(error=np.where(np.arange(24) < 4, "inverted", "none"))]
    scope: dict[str, object] = {}
    exec(audit_fit.fit(sets), scope)
    weights = scope["WEIGHTS"]
    assert isinstance(weights, dict)
    assert all(weight <= 0 if name in audit_fit.FAVOURABLE else weight >= 0 for name, weight in weights.items())
    assert scope["PRIOR"] == pytest.approx(4 / 24, abs=1e-3)


def test_the_votes_on_the_real_chips():
    folder = SHARED / "real-labels"
    if not folder.exists():
        pytest.skip("shared/real-labels is not beside the project")
    assert audit_real.opinions(folder)["error"].value_counts().to_dict() == {"rejected": 12, "believable": 6}
