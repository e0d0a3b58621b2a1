"""Functions run by processes that tests kill, in a module that a new process can import."""

from __future__ import annotations

from pathlib import Path

import torch

from cloudcover.config.training import TrainingConfig
from cloudcover.data.store import ChipStore
from cloudcover.train.run import train
from cloudcover.train.split import Split


def train_into(store: Path, selection: Split, folder: Path, recipe: TrainingConfig) -> None:
    torch.set_num_threads(1)
    train(recipe, ChipStore(store), selection, folder / "model", folder / "work", run="round1", fold=0)
