"""One training run: from chips and labels to a model folder, resumed where it was interrupted."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from cloudcover.config.params import (
    AugmentationParams,
    ComputeParams,
    DataParams,
    FoldsParams,
    InputParams,
    ModelParams,
    TrainingParams,
)
from cloudcover.data import tables
from cloudcover.data.store import Store
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, library_versions, save_model
from cloudcover.models.normalize import Scaler
from cloudcover.runtime.device import precision, resolve_device
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.train import distributed
from cloudcover.train.callbacks import AverageWeights, Best, Progress, ResumeState, last_state
from cloudcover.train.data import Chips, Masks
from cloudcover.train.module import SegmentationModule
from cloudcover.train.select import Selection, check

log = logging.getLogger(__name__)

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@dataclass(frozen=True)
class Recipe:
    """The sections of the parameters that determine a training run."""

    seed: int
    data: DataParams
    folds: FoldsParams
    input: InputParams
    model: ModelParams
    training: TrainingParams
    augmentation: AugmentationParams
    compute: ComputeParams

    def fingerprint(self, store: Store, selection: Selection, masks: Masks | None) -> str:
        """Fingerprint of everything that determines the result: parameters, chips, labels, library versions."""
        sections = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in vars(self).items()}
        items = pd.concat([selection.training, selection.validation])
        sources = store.index.loc[items["chip_id"], "source_sha256"].tolist()
        chosen = items.loc[items["label"] != "human", "chip_id"].tolist()
        made = [fingerprint(masks.targets([c]).tobytes().hex()) for c in chosen] if masks else []
        return fingerprint([sections, items.to_csv(index=False), sources, made, library_versions()])


def train(
    recipe: Recipe,
    store: Store,
    selection: Selection,
    output: Path,
    work: Path,
    *,
    run: str,
    fold: int,
    masks: Masks | None = None,
) -> ModelCard:
    """Trains a model and publishes it as a model folder with `history.csv` (`tables.HISTORY`).

    The training state lives below `work`, in a folder named by the fingerprint of everything that determines the run:
    the same command goes on after the last finished epoch; other parameters or data start afresh. When the model is
    published the state is removed.

    Args:
        recipe: the parameters.
        store: the packed chips.
        selection: what to learn from and what to validate on.
        output: the model folder.
        work: parent of training states.
        run: name of the run: `baseline`, `round1`, `final/unet`.
        fold: the held-out fold.
        masks: of the chips whose label is not the human one.

    Raises:
        SelectionError: a leak between training and validation.
        NotFiniteError: the loss is NaN or infinite.
    """
    check(selection, recipe.folds.group)
    identity = recipe.fingerprint(store, selection, masks)
    seed = derive_seed(recipe.seed, run, fold)
    state = work / identity[:16]
    name = f"{run} fold {fold}"
    p = recipe.training
    device = resolve_device(recipe.compute.device)
    torch.manual_seed(seed)
    network = build_model(recipe.model, len(recipe.data.bands))
    if recipe.compute.compile:
        network.compile()
    data = Chips(store, selection, masks, p.batch_size, recipe.compute.prediction_batch, seed, pin=device == "cuda")
    steps = -(-len(selection.training) // p.batch_size) * p.epochs
    scaler = Scaler(recipe.input, recipe.data, reuse=device == "cpu")  # each batch is learnt from before the next comes
    module = SegmentationModule(network, scaler, p, recipe.augmentation, steps, seed)
    figure = f"validation_{p.best}"
    progress, best = Progress(name), Best(figure)
    callbacks: list[pl.Callback] = [progress, best]
    if p.ema_decay is not None:
        callbacks.append(AverageWeights(p.ema_decay))
    callbacks.append(EarlyStopping(figure, mode="max", patience=p.patience, check_on_train_epoch_end=True))
    callbacks.append(ResumeState(state))
    processes = recipe.compute.devices
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=distributed.devices_per_node(processes, device),
        num_nodes=distributed.nodes(),
        plugins=[distributed.environment()],
        strategy="ddp" if processes > 1 else "auto",
        sync_batchnorm=processes > 1 and device == "cuda",
        precision=PRECISIONS[precision(recipe.compute.precision, device)],
        max_epochs=p.epochs,
        callbacks=callbacks,
        deterministic="warn" if device == "cuda" else True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
    if processes > 1:
        log.info("%s is trained by %d processes on %d nodes", name, trainer.world_size, trainer.num_nodes)
    resume = last_state(state)
    if resume:
        log.info("%s resumes after %s", name, resume.stem)
    else:
        log.info("%s: %d chips to learn from (%d pseudo-labelled), %d to validate on", name, len(selection.training),
                 int((selection.training["label"] == "pseudo").sum()), len(selection.validation))  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    network.load_state_dict(best.weights)
    card = ModelCard(
        architecture=recipe.model.architecture,
        encoder=recipe.model.encoder,
        decoder_channels=recipe.model.decoder_channels,
        bands=recipe.data.bands,
        nodata=recipe.data.nodata,
        chip_size=recipe.data.chip_size,
        input=recipe.input,
        run=run,
        fold=fold,
        seed=seed,
        fingerprint=identity,
        metrics={**best.figures, "epoch": float(best.epoch)},
    )
    if trainer.is_global_zero:
        tables.HISTORY.write(pd.DataFrame(progress.history), output / "history.csv")
        save_model(output, network, card)
        shutil.rmtree(state, ignore_errors=True)
    return card
