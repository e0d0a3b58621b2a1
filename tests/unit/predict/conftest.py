"""What tests of prediction share."""

from __future__ import annotations

import pytest

from cloudcover.models import folder as model_folder
from cloudcover.models.folder import save_model
from cloudcover.predict.predictor import Predictor
from helpers.networks import Brightness, card


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Makes a predictor of a stand-in network: `model(Blurred(), tta="none", settings=None, **card)`."""

    def make(network, tta="none", settings=None, **changes):
        monkeypatch.setattr(model_folder, "build_model", lambda *_, **__: network)
        save_model(tmp_path / "model", network, card(**changes))
        return Predictor([tmp_path / "model"], tta, "cpu", batch=4, settings=settings)

    return make


@pytest.fixture
def bright(tmp_path, monkeypatch):
    """Makes model folders of `Brightness` networks: `bright(level, threshold=…)`."""
    monkeypatch.setattr(model_folder, "build_model", lambda *_, **__: Brightness())

    def make(level: float = 1.0, name: str = "final/unet/fold0", **changes):
        save_model(tmp_path / name, Brightness(level), card(**changes))
        return tmp_path / name

    return make
