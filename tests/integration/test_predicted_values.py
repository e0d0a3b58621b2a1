"""What rasters say of their pixels counts in the masks that are predicted of them."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.data.chips import read_chip
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, save_model
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.rasters.find import find_images
from helpers.layouts import BANDS, make_layout
from helpers.paths import SHARED
from helpers.values import TAGS, darkened, rewrite, shifted, warnings_in


@pytest.fixture
def predictor(tmp_path):
    """A network of random weights whose threshold halves the pixels of the set `tmp_path/set`."""
    make_layout(tmp_path / "set", chips=2, size=96, unlabelled=0)
    darkened(tmp_path / "set")
    params = ModelParams.model_validate({"encoder": "tu-mobilenetv3_small_050", "decoder_channels": [8] * 5})
    values = params.model_dump(include={"architecture", "encoder", "decoder_channels"}) | {
        "bands": BANDS, "nodata": 0, "input": InputParams.model_validate({}), "chip_size": 96, "fingerprint": "",
        "run": "round1", "fold": 0, "seed": 0,
    }  # fmt: skip
    network = build_model(params, BANDS, pretrained=False)
    save_model(tmp_path / "model", network, ModelCard.model_validate(values))
    folders = [Path(chip.place) for chip in find_images([tmp_path / "set"], BANDS)]
    chips = np.stack([read_chip(folder, None, BANDS, (96, 96)).bands for folder in folders])
    median = float(np.median(Predictor([tmp_path / "model"]).probabilities(chips, np.zeros((2, 4, 2), np.float32))))
    save_model(tmp_path / "model", network, ModelCard.model_validate(values | {"threshold": median}))
    return Predictor([tmp_path / "model"])


def masks(predictor, folder, out, **options):
    read = {}
    for path in predict_images(predictor, find_images([folder], BANDS, **options), Outputs(out)):
        with rasterio.open(path) as mask:
            read[path.stem] = mask.read(1)
    return read


def same(one, other):
    assert one.keys() == other.keys()
    for chip, mask in one.items():
        np.testing.assert_array_equal(mask, other[chip])


def test_a_chip_with_an_offset_has_the_mask_of_the_one_without_and_is_named(predictor, tmp_path, caplog):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    assert all(0.05 < mask.mean() < 0.95 for mask in plain.values()), "the masks could not tell"
    assert "converted" not in caplog.text
    shifted(tmp_path / "set", **TAGS)
    with caplog.at_level(logging.INFO, "cloudcover"):
        same(masks(predictor, tmp_path / "set", tmp_path / "tagged", offset=1000), plain)  # the tag goes first
    assert "converted 2 chips (c000, c001) to DN by scale=0.0001,offset=-0.1" in caplog.text
    assert "begin near 1000" not in caplog.text


def test_an_offset_without_a_tag_is_suspected_by_name_and_mended_by_the_option(predictor, tmp_path, caplog):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    assert not warnings_in(caplog)
    shifted(tmp_path / "set")
    masks(predictor, tmp_path / "set", tmp_path / "wrong")
    assert "all bands of 2 chips (c000, c001) begin near 1000 DN" in caplog.text
    assert "--offset 1000" in caplog.text
    caplog.clear()
    same(masks(predictor, tmp_path / "set", tmp_path / "right", offset=1000), plain)
    assert not warnings_in(caplog)


def test_nodata_and_masks_of_the_files_are_255_in_the_mask(predictor, tmp_path):
    valid = np.arange(96) >= 32
    for path in (tmp_path / "set").rglob("B*.tif"):
        rewrite(path, lambda pixels: np.where(valid, pixels, 0))
    zeros = masks(predictor, tmp_path / "set", tmp_path / "zeros")
    for number, path in enumerate(sorted((tmp_path / "set").rglob("B*.tif"))):
        marked = {"nodata": 65535} if number < 4 else {"mask": np.broadcast_to(valid, (96, 96))}
        rewrite(path, lambda pixels: np.where(valid, pixels, 65535), **marked)
    read = masks(predictor, tmp_path / "set", tmp_path / "out")
    same(read, zeros)
    assert all(((mask == 255) == ~valid).all() for mask in read.values())


def test_the_command_says_what_it_converted_and_takes_the_offset(predictor, tmp_path):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    shifted(tmp_path / "set")
    for path in (tmp_path / "set").rglob("c000/B*.tif"):
        rewrite(path, **TAGS)
    command = [sys.executable, "-m", "cloudcover", "predict", "set", "--model", "model", "--out", "out"]
    done = subprocess.run([*command, "--offset", "1000"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "converted 1 chip (c000) to DN by scale=0.0001,offset=-0.1\n" in done.stderr
    assert "converted 1 chip (c001) to DN by data.offset=1000\n" in done.stderr
    for chip, expected in plain.items():
        with rasterio.open(tmp_path / "out" / f"{chip}.tif") as mask:
            np.testing.assert_array_equal(mask.read(1), expected)


@pytest.mark.parametrize("name", ["pb04", "nd65535"])
def test_inputs_that_failed_are_read_as_meant(name):
    folder = SHARED / "failing-inputs" / name / "c0"
    if not folder.exists():
        pytest.skip(f"the inputs that failed are not at {folder}")
    chip = read_chip(folder, None, BANDS, (96, 96))
    for band, pixels in zip(BANDS, chip.bands, strict=True):
        with rasterio.open(folder / f"{band}.tif") as source:
            stored = source.read(1).astype(int)
        np.testing.assert_array_equal(pixels, stored - 1000 if name == "pb04" else np.where(stored < 65535, stored, 0))
    if name == "nd65535":
        assert (chip.bands == 0).any(axis=0).mean() == pytest.approx(30 / 96)
