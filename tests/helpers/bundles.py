"""What tests of delivered models share: a bundle of random networks that uses everything a bundle can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.masks.decision import InferenceSettings
from cloudcover.masks.postprocess import Postprocess
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, save_model
from cloudcover.predict.bundle import write_bundle
from cloudcover.predict.model import load_model
from helpers.layouts import BANDS, make_layout

ENCODER = "tu-mobilenetv3_small_050"
CHANNELS = [16, 16, 8, 8, 8]


def read_chips(folder: Path) -> NDArray[np.uint16]:
    """Read N x B x H x W uint16 [DN] of chip folders of one size, in the order of their names."""
    return np.array([[rasterio.open(chip / f"{b}.tif").read(1) for b in BANDS] for chip in sorted(folder.iterdir())])


def cut_out(chip: Path, rows: slice, columns: slice = slice(None)) -> None:
    """Leave a part of a chip without data, in all bands."""
    for band in BANDS:
        with rasterio.open(chip / f"{band}.tif", "r+") as raster:
            pixels = raster.read(1)
            pixels[rows, columns] = 0
            raster.write(pixels, 1)


def random_bundle(root: Path, chips: NDArray[np.uint16]) -> Path:
    """Write two networks with weights, a temperature, post-processing and two views.

    Args:
        root: Folder of the models and of the bundle.
        chips: N x B x H x W; half of their pixels are above the threshold.
    """
    folders = []
    for fold in range(2):
        torch.manual_seed(fold)
        params = ModelParams.model_validate({"encoder": ENCODER, "encoder_weights": None, "decoder_channels": CHANNELS})
        card = ModelCard(
            architecture="unet", encoder=ENCODER, decoder_channels=CHANNELS, bands=BANDS, nodata=0, chip_size=64,
            input=InputParams.model_validate({}), fingerprint="f", run="final/unet", fold=fold, seed=1,
        )  # fmt: skip
        folders.append(root / f"final/unet/fold{fold}")
        save_model(folders[-1], build_model(params, BANDS), card)
    settings = InferenceSettings(
        weights={"unet-fold0": 0.6, "unet-fold1": 0.4},
        temperature=1.3,
        postprocess=Postprocess(median_pixels=3, min_area_pixels=5),
    )
    write_bundle(folders, "vflip", settings, root / "bundle")
    middle = float(np.nanmedian(load_model(root / "bundle").probabilities(chips)))
    write_bundle(folders, "vflip", settings.model_copy(update={"threshold": middle}), root / "bundle")
    return root / "bundle"


def write_three_chips(root: Path) -> Path:
    """Write three chips of 50 x 50 pixels, one with a corner without data, with labels."""
    make_layout(root, chips=3, size=50, scenes=3, unlabelled=0)
    cut_out(root / "train_features/c000", slice(5), slice(7))
    return root
