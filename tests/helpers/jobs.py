"""What processes do that tests kill; here, so that a new process can import it."""

from __future__ import annotations

from pathlib import Path

import torch

from cloudcover.config.training import TrainingConfig
from cloudcover.data.store import ChipStore
from cloudcover.predict.images import predict_images
from cloudcover.predict.openvino.export import export
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.rasters.find import find_images
from cloudcover.train.run import train
from cloudcover.train.split import Split
from helpers.layouts import BANDS


def predict_into(model: Path, chips: Path, out: Path) -> None:
    torch.set_num_threads(1)
    predict_images(Predictor([model]), find_images([chips], BANDS), Outputs(out))


def export_into(bundle: Path, out: Path) -> None:
    torch.set_num_threads(1)
    export(bundle, out, "fp32")


def train_into(store: Path, selection: Split, folder: Path, recipe: TrainingConfig) -> None:
    torch.set_num_threads(1)
    train(recipe, ChipStore(store), selection, folder / "model", folder / "work", run="round1", fold=0)
