"""Every architecture, with a small encoder: it trains, resumes after an interruption, reloads and predicts."""

from typing import get_args

import numpy as np
import pytest
import torch

from cloudcover.config.sections import Architecture
from cloudcover.data import tables
from cloudcover.models.folder import load_model
from cloudcover.models.normalize import Normalize
from cloudcover.predict.predictor import Predictor
from cloudcover.train import run
from helpers.training import dying_after, fit, recipe_of


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_it_trains_resumes_reloads_and_predicts(learnable_set, tmp_path, monkeypatch, caplog, architecture):
    caplog.set_level("INFO")
    config = recipe_of(model={"architecture": architecture}, training={"steps": 4, "batch_size": 6})
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_state", dying_after(1))
        with pytest.raises(KeyboardInterrupt):
            fit(learnable_set, tmp_path, config)
    card = fit(learnable_set, tmp_path, config)
    assert "resumes after epoch-00000" in caplog.text
    history = tables.HISTORY.read(tmp_path / "model" / "history.csv")
    assert history["epoch"].tolist() == [0, 1]
    assert history["train_loss"].iloc[1] < history["train_loss"].iloc[0]
    assert card.metrics["validation_jaccard"] == history["validation_jaccard"].iloc[-1]

    store, selection = learnable_set
    ids = selection.validation["chip_id"].tolist()
    dn, percentiles = store.chips(ids), store.percentiles(ids)
    network, reloaded = load_model(tmp_path / "model")
    assert (reloaded.architecture, reloaded.run) == (architecture, "round1")
    with torch.no_grad():
        expected = network(Normalize(reloaded.input, reloaded.data_params())(dn))[:, 0].sigmoid().numpy()
    found = Predictor([tmp_path / "model"], batch=4).probabilities(dn, percentiles)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.std() > 0
