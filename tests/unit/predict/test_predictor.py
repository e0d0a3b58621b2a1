"""A predictor: probabilities and masks of one model or of several, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cloudcover.augment.tta import POLICIES
from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.masks.decision import InferenceSettings, mask_of
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.predictor import EnsembleError, Predictor
from cloudcover.runtime.device import DeviceMemoryError
from helpers.layouts import BANDS
from helpers.networks import ENCODER, card
from helpers.training import needs_gpu


@pytest.mark.parametrize("policy", ["none", "vflip", "hflip", "flips", "d4"])
def test_an_ensemble_averages_probabilities_whatever_the_batch(bright, policy):
    folders = [bright(0.5, "a"), bright(1.5, "b")]
    rng = np.random.default_rng(0)
    dn = rng.integers(500, 9000, (5, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    both = Predictor(folders, policy, batch=2).probabilities(dn, percentiles)
    single = [Predictor([f], policy, batch=5).probabilities(dn, percentiles) for f in folders]
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-5)
    scaled = (dn[:, 0] / 10_000 - 0.275) / 0.24
    np.testing.assert_allclose(single[0], 1 / (1 + np.exp(-10 * (scaled - 0.5))), atol=1e-4)


def test_threads_do_not_disturb_each_other(bright):
    predictor = Predictor([bright()], "flips", batch=2)
    dn = np.random.default_rng(0).integers(500, 9000, (32, 4, 128, 128)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    alone = predictor.probabilities(dn, percentiles)
    with ThreadPoolExecutor(4) as threads:
        parts = list(
            threads.map(lambda i: predictor.probabilities(dn[i : i + 1], percentiles[i : i + 1]), range(len(dn)))
        )
    np.testing.assert_array_equal(np.concatenate(parts), alone)


def test_models_that_disagree_about_their_input_cannot_predict_together(bright):
    other = InputParams.model_validate({"mean": [0, 0], "std": [1, 1]})
    folders = [bright(name="a"), bright(name="b", bands=["B02", "B03"], input=other)]
    with pytest.raises(EnsembleError, match=r"b has bands \['B02', 'B03'\], but .*a has"):
        Predictor(folders)
    with pytest.raises(EnsembleError, match="at least one"):
        Predictor([])


def test_chips_of_other_bands_are_refused(bright):
    with pytest.raises(EnsembleError, match="the chips have 3 bands, the model was made for"):
        Predictor([bright()]).probabilities(np.ones((1, 3, 64, 64), np.uint16), np.ones((1, 3, 2), np.float32))


def test_a_mask_is_one_above_the_threshold_only():
    probabilities = np.array([[[0.2, 0.5, 0.51, 0.9]]], np.float32)
    chips = np.array([[[[1, 1, 1, 0]]]], np.uint16)
    assert mask_of(probabilities, chips, 0.5, 0).tolist() == [[[0, 0, 1, 255]]]


def test_masks_of_the_device_are_those_of_its_probabilities(bright):
    settings = InferenceSettings(weights={"a": 0.8, "b": 0.2}, temperature=2.0, threshold=0.4)
    predictor = Predictor([bright(0.5, "a"), bright(1.5, "b")], "flips", batch=2, settings=settings)
    dn = np.random.default_rng(0).integers(0, 9000, (5, 4, 64, 64)).astype(np.uint16)
    dn[0, 0, :8] = 0
    percentiles = chip_percentiles(dn, 0)
    expected = mask_of(predictor.probabilities(dn, percentiles), dn, 0.4, 0)
    assert set(np.unique(expected)) == {0, 1, 255}
    np.testing.assert_array_equal(predictor.masks(dn, percentiles), expected)


def test_the_temperature_of_the_card_divides_the_logits(bright):
    dn, percentiles = np.full((1, 4, 64, 64), 9000, np.uint16), np.zeros((1, 4, 2), np.float32)
    plain, cooled = (
        Predictor([bright(name=n, temperature=t)]).probabilities(dn, percentiles) for n, t in (("a", 1), ("b", 4))
    )
    logit = np.log(plain / (1 - plain))
    np.testing.assert_allclose(cooled, 1 / (1 + np.exp(-logit / 4)), atol=1e-3)


def test_views_alone_average_to_their_policy(bright):
    predictor = Predictor([bright(0.5, "a"), bright(1.5, "b")], "d4", batch=2)
    dn = np.random.default_rng(0).integers(500, 9000, (3, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    views = [predictor.of_view(dn, percentiles, view) for view in POLICIES["d4"]]
    np.testing.assert_allclose(np.mean(views, axis=0), predictor.probabilities(dn, percentiles), atol=1e-5)


def test_too_little_memory_of_a_gpu_says_what_to_lower(bright, monkeypatch):
    def full(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    predictor = Predictor([bright()], batch=2)
    monkeypatch.setattr(type(predictor.engines[0]), "logits", full)
    with pytest.raises(
        DeviceMemoryError, match=r"not enough memory on cpu for 2 chips of 64 x 64 pixels: lower compute\.pred"
    ):
        predictor.masks(np.ones((3, 4, 64, 64), np.uint16), np.zeros((3, 4, 2), np.float32))


LIMITED = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from cloudcover.predict.predictor import Predictor

torch.set_num_threads(1)
predictors = {chips: Predictor([Path(sys.argv[1])], device="cpu", batch=batch) for batch, chips in ((64, 64), (1, 2))}
dn, percentiles = np.ones((64, 4, 512, 512), np.uint16), np.zeros((64, 4, 2), np.float32)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20), -1))
for chips, predictor in predictors.items():
    try:
        print(predictor.masks(dn[:chips], percentiles).shape)
    except ValueError as error:
        print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_too_little_memory_of_a_machine_says_what_to_lower(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "model", build_model(model, BANDS), card())
    words = [sys.executable, "-c", LIMITED, tmp_path / "model"]
    first, second = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert first.startswith("there is not enough memory on cpu for 64 chips of 512 x 512 pixels: lower compute.pred")
    assert second == "(2, 512, 512)"


@needs_gpu
def test_a_compiled_network_gives_the_masks_of_the_eager_one(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "m", build_model(model, BANDS), card())
    dn = np.random.default_rng(0).integers(500, 9000, (8, 4, 64, 64)).astype(np.uint16)
    percentiles = chip_percentiles(dn, 0)
    predictor = Predictor([tmp_path / "m"], "vflip", "cuda", "fp32", batch=8)
    eager = predictor.masks(dn, percentiles)
    predictor.prepare(10**9)
    assert (predictor.masks(dn, percentiles) != eager).mean() <= 0.001
