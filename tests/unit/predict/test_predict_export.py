"""Exported models: they agree with torch, say what they are, and refuse what they were not made for."""

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cloudcover.cli.export import export as export_command
from cloudcover.masks.decision import InferenceSettings
from cloudcover.models.folder import ModelFolderError
from cloudcover.predict.bundle import load_bundle, write_bundle
from cloudcover.predict.openvino.card import ExportError, load_library
from cloudcover.predict.openvino.export import export
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import read_json
from helpers.training import fit, recipe_of

if find_spec("openvino") is None or find_spec("nncf") is None:  # importing them here would load their telemetry
    pytest.skip("needs the extra cloudcover[openvino]", allow_module_level=True)


@pytest.fixture(scope="module")
def trained(learnable_set, tmp_path_factory):
    """A trained model folder and the store that it was trained on."""
    root = tmp_path_factory.mktemp("trained")
    fit(learnable_set, root, recipe_of(training={"steps": 18}), "final/unet")
    return root / "model", learnable_set[0]


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The model's exports by precision."""
    model, store = trained
    root = tmp_path_factory.mktemp("exports")
    for precision in ("bf16", "int8"):
        export(model, root / precision, precision, store)
    return root


def probabilities(folder, store, policy="vflip"):
    ids = store.index["chip_id"].tolist()
    return Predictor([folder], policy, batch=5).probabilities(store.chips(ids), store.percentiles(ids))


def test_several_threads_may_use_an_export_at_once(exported):
    engine = Predictor([exported / "bf16"]).engines[0]
    inputs = [torch.full((2, 4, 32, 32), float(level)) for level in (-1, 1)] * 3
    alone = [engine.logits(chips) for chips in inputs]
    for _ in range(5):
        with ThreadPoolExecutor(len(inputs)) as pool:
            for expected, found in zip(alone, pool.map(engine.logits, inputs), strict=True):
                torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("precision", "share"), [("bf16", 0.005), ("int8", 0.03)])
def test_an_export_gives_nearly_the_same_masks_as_torch(trained, exported, precision, share):
    model, store = trained
    masks = [probabilities(folder, store) > 0.5 for folder in (model, exported / precision)]
    assert masks[0].any()
    assert not masks[0].all()
    assert (masks[0] != masks[1]).mean() < share


def test_fp32_is_equal_to_rounding_for_other_sizes_too(trained, tmp_path):
    model, _ = trained
    export(model, tmp_path / "fp32", "fp32")
    rng = np.random.default_rng(0)
    dn, percentiles = rng.integers(500, 9000, (3, 4, 96, 160)).astype(np.uint16), np.zeros((3, 4, 2), np.float32)
    expected, found = (
        Predictor([folder], "vflip").probabilities(dn, percentiles) for folder in (model, tmp_path / "fp32")
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_card_of_an_export_tells_how_it_was_made(trained, exported):
    model, store = trained
    card = read_json(exported / "int8" / "export.json")
    assert card["precision"] == "int8"
    assert card["source_sha256"] == read_json(model / "model.json")["weights_sha256"]
    assert not set(card["calibration_chips"]) & set(card["checked_chips"])
    assert set(card["calibration_chips"]) | set(card["checked_chips"]) == set(store.index["chip_id"])
    masks = [probabilities(folder, store, "none") > 0.5 for folder in (model, exported / "int8")]
    checked = store.index.index.isin(card["checked_chips"])
    assert card["disagreement_share"] == pytest.approx((masks[0] != masks[1])[checked].mean(), abs=1e-3)


def test_a_damaged_or_mixed_export_is_refused(exported, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in (exported / "bf16").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "model.xml").write_text((folder / "model.xml").read_text() + "\n")
    with pytest.raises(ModelFolderError, match=r"model\.xml has SHA-256"):
        Predictor([folder])
    (folder / "model.xml").unlink()
    with pytest.raises(ModelFolderError, match=r"model\.xml is missing"):
        Predictor([folder])


def test_an_export_runs_in_its_own_precision_only(exported):
    with pytest.raises(ExportError, match="was exported in int8 and cannot run in fp32"):
        Predictor([exported / "int8"], precision="fp32")


def test_int8_needs_chips_of_the_models_bands(trained, tmp_path, monkeypatch):
    model, store = trained
    with pytest.raises(ExportError, match="int8 needs at least two chips"):
        export(model, tmp_path, "int8")
    monkeypatch.setattr(store, "bands", lambda: ["B02"])
    with pytest.raises(ExportError, match=r"the store has the bands \['B02'\], the model was made for"):
        export(model, tmp_path, "int8", store)


def test_an_export_is_not_exported_again(exported, tmp_path):
    with pytest.raises(ModelFolderError, match="is already an export"):
        export(exported / "bf16", tmp_path, "bf16")


def test_a_bundle_is_exported_whole_and_keeps_its_policy(trained, tmp_path):
    model, _ = trained
    bundle = tmp_path / "bundle"
    settings = InferenceSettings(weights={f"{model.parent.name}-{model.name}": 1.0}, threshold=0.4)
    write_bundle([model], "hflip", settings, bundle)
    result = CliRunner().invoke(export_command, [str(bundle), "--out", str(tmp_path / "fast")])
    assert result.exit_code == 0, result.output
    assert "1 models in" in result.output
    predictor = load_bundle(tmp_path / "fast")
    assert (predictor.policy, predictor.threshold, predictor.device) == ("hflip", 0.4, "cpu")


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExportError, match=r'pip install "cloudcover\[openvino\]"'):
        load_library("openvino")


def test_no_telemetry_is_loaded():
    load_library("openvino")
    load_library("nncf")
    assert sys.modules["openvino_telemetry"] is None
