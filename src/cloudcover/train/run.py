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

from cloudcover.config.sections import (
    AugmentationParams,
    ComputeParams,
    DataParams,
    FoldsParams,
    InputParams,
    ModelParams,
    TrainingParams,
)
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, library_versions, save_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.device import precision, resolve_device
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.train import distributed
from cloudcover.train.callbacks import EMA, BestWeights, Checkpoint, Progress, last_state
from cloudcover.train.data import ChipDataModule, Masks
from cloudcover.train.module import SegmentationModule
from cloudcover.train.split import Split, check

log = logging.getLogger(__name__)

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@dataclass(frozen=True)
class TrainingConfig:
    """The sections of the parameters that determine a training run."""

    seed: int
    data: DataParams
    folds: FoldsParams
    input: InputParams
    model: ModelParams
    training: TrainingParams
    augmentation: AugmentationParams
    compute: ComputeParams

    def fingerprint(self, store: ChipStore, split: Split, masks: Masks | None) -> str:
        """Fingerprint of everything that determines the result: parameters, chips, labels, library versions."""
        sections = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in vars(self).items()}
        items = pd.concat([split.training, split.validation])
        sources = store.index.loc[items["chip_id"], "source_sha256"].tolist()
        chosen = items.loc[items["label"] != "human", "chip_id"].tolist()
        made = [fingerprint(masks.targets([c]).tobytes().hex()) for c in chosen] if masks else []
        return fingerprint([sections, items.to_csv(index=False), sources, made, library_versions()])


def train(
    config: TrainingConfig,
    store: ChipStore,
    split: Split,
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
        config: the parameters.
        store: the packed chips.
        split: what to learn from and what to validate on.
        output: the model folder.
        work: parent of training states.
        run: name of the run: `baseline`, `round1`, `final/unet`.
        fold: the held-out fold.
        masks: of the chips whose label is not the human one.

    Raises:
        SplitError: a leak between training and validation.
        NotFiniteError: the loss is NaN or infinite.
    """
    check(split, config.folds.group)
    identity = config.fingerprint(store, split, masks)
    seed = derive_seed(config.seed, run, fold)
    state = work / identity[:16]
    name = f"{run} fold {fold}"
    p = config.training
    device = resolve_device(config.compute.device)
    torch.manual_seed(seed)
    network = build_model(config.model, len(config.data.bands))
    if config.compute.compile:
        network.compile()
    data = ChipDataModule(
        store, split, masks, p.batch_size, config.compute.prediction_batch, seed, pin=device == "cuda"
    )
    steps = -(-len(split.training) // p.batch_size) * p.epochs
    normalize = Normalize(
        config.input, config.data, reuse=device == "cpu"
    )  # each batch is learnt from before the next comes
    module = SegmentationModule(network, normalize, p, config.augmentation, steps, seed)
    figure = f"validation_{p.monitor}"
    progress, best = Progress(name), BestWeights(figure)
    callbacks: list[pl.Callback] = [progress, best]
    if p.ema_decay is not None:
        callbacks.append(EMA(p.ema_decay))
    callbacks.append(EarlyStopping(figure, mode="max", patience=p.patience, check_on_train_epoch_end=True))
    callbacks.append(Checkpoint(state))
    processes = config.compute.devices
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=distributed.devices_per_node(processes, device),
        num_nodes=distributed.nodes(),
        plugins=[distributed.environment()],
        strategy="ddp" if processes > 1 else "auto",
        sync_batchnorm=processes > 1 and device == "cuda",
        precision=PRECISIONS[precision(config.compute.precision, device)],
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
        log.info("%s: %d chips to learn from (%d pseudo-labelled), %d to validate on", name, len(split.training),
                 int((split.training["label"] == "pseudo").sum()), len(split.validation))  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    network.load_state_dict(best.weights)
    card = ModelCard(
        architecture=config.model.architecture,
        encoder=config.model.encoder,
        decoder_channels=config.model.decoder_channels,
        bands=config.data.bands,
        nodata=config.data.nodata,
        chip_size=config.data.chip_size,
        input=config.input,
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
