"""A folder in which nothing may be written: an error names it, and nothing is left in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudcover.config.sections import DataParams, ModelParams, SyntheticParams
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.masks.decision import InferenceSettings
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.bundle import write_bundle
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.rasters.find import find_images
from cloudcover.sources.fetch import fetch
from helpers.layouts import BANDS, make_layout
from helpers.networks import ENCODER, card
from helpers.users import error_as_nobody, folder_of_nobody


@pytest.mark.parametrize("command", ["synth", "copy", "pack", "predict", "bundle"])
def test_a_read_only_folder_is_named_and_nothing_is_left(command):
    with folder_of_nobody(0o500) as out:
        raw, model = out.parent / "set", out.parent / "unet/fold0"  # which nobody can read there
        make_layout(raw, chips=4, unlabelled=0)
        write_file_table(raw, "test")
        told = error_as_nobody(work(command, raw, model, out))
        assert re.match(rf"PermissionError: .*Permission denied: .*{out}", told), told
        assert list(out.iterdir()) == []


def work(command: str, raw: Path, model: Path, out: Path):
    """A command that writes to `out`; whatever it needs besides is made and read before."""
    data, synthetic = DataParams(chip_size=64), SyntheticParams(locations=2, scenes=2, chips=4)
    if command == "synth":
        return lambda: fetch(data, synthetic, 0, out / "raw", out / "truth")
    if command == "copy":
        local = DataParams(source="local", path=str(raw), chip_size=64)
        return lambda: fetch(local, synthetic, 0, out / "raw", out / "truth")
    if command == "pack":
        pack(raw, raw / "../before/store", raw / "../before/quarantine.csv", data)  # imports what nobody may not read
        return lambda: pack(raw, out / "store", out / "quarantine.csv", data)
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(model, build_model(params, BANDS), card())
    if command == "bundle":
        settings = InferenceSettings(weights={"unet-fold0": 1.0}, threshold=0.5)
        return lambda: write_bundle([model], "none", settings, out)
    predictor, images = Predictor([model], device="cpu"), find_images([raw], BANDS)
    return lambda: predict_images(predictor, images, Outputs(out / "masks"))
