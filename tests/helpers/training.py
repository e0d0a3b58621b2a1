"""Helpers for tests of training: a small set that is learned in seconds, and a run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cloudcover.config.params import Params, validate
from cloudcover.config.training import TrainingConfig
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.models.folder import ModelCard
from cloudcover.train import run
from cloudcover.train.run import train
from cloudcover.train.split import Split, select
from helpers.layouts import make_layout

TINY = {
    "data": {"chip_size": 64},
    "model": {"encoder": "tu-mobilenetv3_small_050", "decoder_channels": [16, 16, 8, 8, 8]},
    "training": {"steps": 9, "batch_size": 4, "warmup_steps": 2, "learning_rate": 0.01},
}


def recipe_of(**changes: dict[str, Any]) -> TrainingConfig:
    """Return the tiny recipe with changes by section."""
    values: dict[str, Any] = {k: dict(v) for k, v in TINY.items()}
    for key, change in changes.items():
        values.setdefault(key, {}).update(change)
    params = validate(values)
    return TrainingConfig.of(params)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def make_store(root: Path, size: int = 64, **options: int) -> ChipStore:
    """Packs a layout of `make_layout`."""
    make_layout(root / "raw", size=size, **options)
    write_file_table(root / "raw", "test")
    pack(root / "raw", root / "store", root / "quarantine.csv", Params().data.model_copy(update={"chip_size": size}))
    return ChipStore(root / "store")


def learnable(root: Path, size: int = 64) -> tuple[ChipStore, Split]:
    """18 chips with clean labels in 6 scenes, of which the model of fold 0 learns from two thirds."""
    store = make_store(root, size, chips=18, scenes=6, unlabelled=0)
    folds = store.index[["chip_id", "scene"]].reset_index(drop=True)
    folds["fold"] = folds["scene"].rank(method="dense").astype(int) % 3
    return store, select(folds[["chip_id"]].assign(label="human"), folds, 0)


def fit(
    chips: tuple[ChipStore, Split], folder: Path, config: TrainingConfig | None = None, name: str = "round1"
) -> ModelCard:
    """Trains fold 0 into `folder/model`, with its state in `folder/work`."""
    store, selection = chips
    return train(config or recipe_of(), store, selection, folder / "model", folder / "work", run=name, fold=0)


def dying_after(epochs: int) -> Callable[[Path, int, str, dict[str, Any]], None]:
    """`save_state` of a run that is cut off as soon as so many epochs are saved."""
    save = run.save_state

    def save_and_die(folder: Path, epoch: int, owner: str, state: dict[str, Any]) -> None:
        save(folder, epoch, owner, state)
        if epoch + 1 == epochs:
            raise KeyboardInterrupt

    return save_and_die
