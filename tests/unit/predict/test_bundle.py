"""Bundles: they predict as was chosen, and damaged ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

from cloudcover.masks.decision import InferenceSettings, apply_temperature
from cloudcover.masks.postprocess import Postprocess
from cloudcover.models.folder import ModelFolderError
from cloudcover.predict.bundle import load_bundle, write_bundle
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.predictor import EnsembleError, Predictor
from cloudcover.runtime.files import read_json, write_json


def test_a_bundle_predicts_with_its_own_policy_and_threshold(bright, tmp_path):
    folders = [bright(0.5, "final/unet/fold0"), bright(1.5, "final/unet/fold1")]
    settings = InferenceSettings(weights={"unet-fold0": 0.5, "unet-fold1": 0.5}, threshold=0.3)
    write_bundle(folders, "flips", settings, tmp_path / "bundle", {"jaccard": 0.9, "jaccard_low": 0.8})
    predictor = load_bundle(tmp_path / "bundle")
    assert (predictor.policy, predictor.threshold, len(predictor.engines)) == ("flips", 0.3, 2)
    text = (tmp_path / "bundle" / "README.md").read_text()
    assert "| jaccard | 0.9000 |" in text
    assert "B02, B03, B04, B08" in text
    (tmp_path / "bundle" / "unet-fold1" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelFolderError, match=r"unet-fold1/model\.safetensors has SHA-256"):
        load_bundle(tmp_path / "bundle")
    with pytest.raises(ModelFolderError, match=r"neither bundle\.json nor model\.json"):
        load_bundle(tmp_path)


def test_a_bundle_applies_exactly_what_was_chosen(bright, tmp_path):
    folders = [bright(0.5, "final/unet/fold0"), bright(1.5, "final/unet/fold1")]
    settings = InferenceSettings(
        weights={"unet-fold0": 0.8, "unet-fold1": 0.2},
        temperature=2.0,
        threshold=0.4,
        postprocess=Postprocess(median_pixels=3, min_area_pixels=9),
    )
    write_bundle(folders, "vflip", settings, tmp_path / "bundle", {"jaccard": 0.9})
    assert "median pixels 3, min area pixels 9" in (tmp_path / "bundle" / "README.md").read_text()
    predictor = load_bundle(tmp_path / "bundle")
    dn = np.random.default_rng(0).integers(500, 9000, (3, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    parts = [Predictor([folder], "vflip").probabilities(dn, percentiles) for folder in folders]
    expected = apply_temperature(0.8 * parts[0] + 0.2 * parts[1], 2.0)
    found = predictor.probabilities(dn, percentiles)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    masks = predictor.masks(dn, percentiles)
    np.testing.assert_array_equal(masks, settings.postprocess.masks(found, 0.4))
    card = read_json(tmp_path / "bundle" / "bundle.json")
    card["settings"]["weights"] = {"unet-fold0": 1.0}
    write_json(tmp_path / "bundle" / "bundle.json", card)
    with pytest.raises(ModelFolderError, match=r"(?s)bundle\.json is not a bundle's card.*there are weights for"):
        load_bundle(tmp_path / "bundle")
    with pytest.raises(EnsembleError, match="the settings have weights for"):
        Predictor(folders, settings=settings)
