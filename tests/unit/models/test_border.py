"""Networks mirror their own input at its borders: any size, in training, prediction and exports alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.models.border import STRIDE, Bordered
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, load_model, save_model
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import read_json, write_json
from helpers.layouts import BANDS

TINY = ModelParams.model_validate({"decoder_channels": [16, 8, 8, 8, 4]})


class Seen(nn.Module):
    """A network that gives back what it sees, and keeps it."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen = inputs
        return inputs


def card(**changes) -> ModelCard:
    values = {
        **TINY.model_dump(include={"architecture", "encoder", "decoder_channels", "border"}), "bands": BANDS,
        "nodata": 0, "input": InputParams.model_validate({}), "chip_size": 64, "fingerprint": "", "run": "round1",
        "fold": 0, "seed": 0,
    }  # fmt: skip
    return ModelCard.model_validate(values | changes)


@pytest.mark.parametrize(
    ("height", "width", "border"), [(64, 96, 16), (100, 33, 16), (96, 96, 0), (70, 64, 1), (1, 7, 40)]
)
def test_a_network_sees_its_chip_mirrored_and_its_output_is_cropped(height, width, border):
    chips = torch.randn(2, 4, height, width)
    network = Bordered(Seen(), border)
    assert torch.equal(network(chips), chips)
    seen = network.network.seen
    assert seen.shape[-2] % STRIDE == seen.shape[-1] % STRIDE == 0
    extra = np.array(seen.shape[-2:]) - (height, width)
    assert (extra >= 2 * border).all()
    assert (extra < 2 * border + STRIDE).all()
    before = extra // 2
    around = [(0, 0), (0, 0), *zip(before, extra - before, strict=True)]
    np.testing.assert_array_equal(seen, np.pad(chips, around, mode="symmetric"))


def test_the_network_gets_channels_last():
    network = Bordered(Seen(), 16)
    network(torch.randn(2, 4, 40, 50))
    assert network.network.seen.is_contiguous(memory_format=torch.channels_last)


def test_gradients_pass_and_are_deterministic():
    torch.manual_seed(0)
    network = build_model(TINY, BANDS)
    torch.use_deterministic_algorithms(True)
    try:
        network(torch.randn(2, 4, 48, 64)).square().mean().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in network.parameters())


def test_clear_ground_looks_the_same_at_the_border_and_inside():
    """A network of zero padding alone sees the border of even ground; a mirrored one does not."""
    torch.manual_seed(0)
    chips = torch.full((1, 4, 100, 100), 0.7)
    differences = []
    for border in (0, 16):
        network = Bordered(nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(10))), border)
        with torch.no_grad():
            logits = network(chips[..., :96, :96] if border == 0 else chips)
        inside = logits[..., 48:49, 48:49]
        differences.append(float((logits - inside).abs().max()))
    assert differences[0] > 1e-3
    assert differences[1] < 1e-5


def test_weights_keep_their_names_whatever_the_border(tmp_path: Path):
    torch.manual_seed(0)
    network = build_model(TINY, BANDS).eval()
    names = set(network.network.state_dict())
    assert set(network.state_dict()) == names
    save_model(tmp_path / "m", network, card())
    loaded, found = load_model(tmp_path / "m")
    assert (loaded.border, found.border) == (16, 16)
    chips = torch.randn(1, 4, 50, 70)
    with torch.no_grad():
        assert torch.equal(loaded(chips), network(chips))


def test_a_model_folder_from_before_loads_without_a_border(tmp_path: Path):
    torch.manual_seed(0)
    network = build_model(TINY.model_copy(update={"border": 0}), BANDS).eval()
    save_model(tmp_path / "m", network, card())
    values = read_json(tmp_path / "m" / "model.json")
    del values["border"]
    write_json(tmp_path / "m" / "model.json", values)
    loaded, found = load_model(tmp_path / "m")
    assert (loaded.border, found.border) == (0, 0)
    chips = torch.randn(1, 4, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(loaded(chips), network.network(chips))


@pytest.mark.parametrize("view", ["flips", "d4"])
def test_a_chip_of_odd_size_is_predicted_by_every_policy(tmp_path: Path, view):
    save_model(tmp_path / "m", build_model(TINY, BANDS), card())
    dn = np.random.default_rng(0).integers(500, 9000, (2, 4, 45, 45)).astype(np.uint16)
    assert Predictor([tmp_path / "m"], view).masks(dn, np.zeros((2, 4, 2), np.float32)).shape == (2, 45, 45)
