"""Out-of-fold predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cloudcover.config.params import validate
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.oof import predict_oof
from cloudcover.predict.predictor import Predictor
from helpers.layouts import BANDS


def test_out_of_fold_predictions_are_those_of_each_policy_and_take_time(bright, tmp_path):
    class Chips:
        """As much of a store as prediction needs."""

        dn = np.random.default_rng(0).integers(500, 9000, (4, 4, 64, 64)).astype(np.uint16)
        index = pd.DataFrame(index=["c0"])

        def require_bands(self, bands, whose):
            assert bands == BANDS

        def chips(self, ids):
            return self.dn[[int(i[1:]) for i in ids]]

        def percentiles(self, ids):
            return np.zeros((len(ids), 4, 2), np.float32)

        batches = staticmethod(ChipStore.batches)

    folds = pd.DataFrame({"chip_id": ["c0", "c1", "c2", "c3"], "fold": [0, 1, 0, 1], "scene": "s"})
    models = {0: [bright(0.5, "a")], 1: [bright(1.5, "b")]}
    compute = validate({"compute": {"prediction_batch": 3}}).compute
    predict_oof(Chips(), folds, models, ["none", "vflip", "d4"], compute, tmp_path / "oof")
    for policy in ("none", "vflip", "d4"):
        found = np.load(tmp_path / "oof" / f"{policy}.npy")
        for fold in (0, 1):
            mine = Chips.dn[fold::2]
            expected = Predictor(models[fold], policy).probabilities(mine, chip_percentiles(mine, 0))
            np.testing.assert_allclose(found[fold::2] / 255, expected, atol=0.5 / 255 + 1e-5)
    times = tables.SECONDS.read(tmp_path / "oof" / "seconds.csv").set_index("tta")["seconds"]
    assert 0 < times["none"] < times["vflip"] < times["d4"]
    # the test part: the mean of all models
    everything = {TEST: [*models[0], *models[1]]}
    predict_oof(Chips(), folds.assign(fold=TEST), everything, ["vflip"], compute, tmp_path / "test")
    expected = Predictor(everything[TEST], "vflip").probabilities(Chips.dn, chip_percentiles(Chips.dn, 0))
    np.testing.assert_allclose(np.load(tmp_path / "test/vflip.npy") / 255, expected, atol=0.5 / 255 + 1e-5)
    predict_oof(Chips(), folds[:0], models, ["vflip"], compute, tmp_path / "empty")
    assert np.load(tmp_path / "empty/vflip.npy").shape == (0, 64, 64)
    with pytest.raises(KeyError, match="1"):  # never zeros in place of predictions
        predict_oof(Chips(), folds, {0: models[0]}, ["vflip"], compute, tmp_path / "half")
    assert not (tmp_path / "half/index.csv").exists()
