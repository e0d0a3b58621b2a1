"""A training run, from chips and labels to a model folder; interrupted runs resume."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cloudcover.config.sections import ComputeParams, TrainingParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, library_versions, save_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.allocator import keep_buffers
from cloudcover.runtime.device import precision, resolve_device
from cloudcover.runtime.files import derive_seed, fingerprint
from cloudcover.train import distributed
from cloudcover.train.data import BatchLoader, Masks, fits
from cloudcover.train.ema import EMA
from cloudcover.train.learner import Learner
from cloudcover.train.logger import live_curves
from cloudcover.train.split import Split, check
from cloudcover.train.state import last_state, load_state, save_state

log = logging.getLogger(__name__)

VALIDATIONS = 5
"""Maximum number of validations where no epoch is selected. They show the curve and change nothing, and on the demo's
folds each takes as long as a third of a pass."""


def training_fingerprint(config: TrainingConfig, store: ChipStore, split: Split, masks: Masks | None) -> str:
    """Hash everything that determines the result: parameters, chips, labels, library versions."""
    sections = {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in vars(config).items()}
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
    history: Path | None = None,
) -> ModelCard:
    """Train a model, and publish it as a model folder and a learning curve.

    The training state is kept below `work`, in a folder named by the run, the fold and the fingerprint of everything
    else that determines the result. The same command resumes after the last finished epoch; other parameters or data
    start a new training. The state is removed when the model is published.

    Args:
        config: The parameters.
        store: The packed chips.
        split: Chips to learn from and to validate on.
        output: The model folder.
        work: Parent folder of training states.
        run: Name of the run: `baseline`, `round1`, `final/unet`.
        fold: The held-out fold.
        masks: Masks of the chips whose label is not the given one.
        history: File for the learning curve (`tables.HISTORY`); None: `history.csv` in the model folder.

    Raises:
        SplitError: There is a leak between training and validation.
        ForeignStateError: The folder of the state holds that of another training.
        NotFiniteError: The loss is NaN or infinite.
        OutOfMemoryError: The memory is too small for one chip.
        DeviceError: Devices are missing.
        LoggerError: The library of `compute.logger` is not installed.
    """
    check(split, config.folds.group)
    identity = training_fingerprint(config, store, split, masks)
    seed = derive_seed(config.seed, config.training.seed, run, fold)
    state = work / fingerprint([identity, run, fold])[:16]
    name = f"{run} fold {fold}"
    owner = f"{name} (fingerprint {identity})"
    p, compute = config.training, config.compute
    torch.set_num_threads(compute.threads)  # it determines the order of sums, and thus the last bits of a result
    device = resolve_device(compute.device)
    if device == "cpu":
        keep_buffers()
    place = distributed.connect(compute.devices, device)
    here = torch.device(device, place.local_rank) if device == "cuda" else torch.device(device)
    # Folds and runs share the compiled network.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(work.parent.absolute() / "inductor"))
    learner = _learner(config, seed, here, place)
    network = learner.network
    resident = device == "cuda" and _resident(compute, store, split, masks)
    loaders = [
        BatchLoader(
            store, items, size, order, masks, rank=place.rank, processes=place.size, device=str(here), resident=resident
        )
        for items, size, order in (
            (split.training, p.batch_size, seed),
            (split.validation, compute.prediction_batch, None),
        )
    ]
    average = EMA(network, p.ema_decay) if p.ema_decay is not None else None
    progress = _Progress(f"validation_{p.monitor}" if p.monitor else None)
    if place.size > 1:
        log.info("training %s with %d processes on %d nodes", name, place.size, distributed.nodes())
    if resume := last_state(state):
        log.info("%s resumes after %s", name, resume.stem)
        _restore(load_state(resume, owner), learner, average, progress)
    else:
        log.info("%s: %d training chips (%d pseudo-labelled), %d validation chips", name, len(split.training),
                 int((split.training["label"] == "pseudo").sum()), len(split.validation))  # fmt: skip
    if device == "cuda":
        log.info("%s runs on %s, %s, chips in its memory: %s, compiled: %s", name, torch.cuda.get_device_name(here),
                 precision(compute.precision, device), resident, compute.compile)  # fmt: skip
    curves = work.parent / "curves" / run / f"fold{fold}"
    logger = compute.logger if place.rank == 0 else "none"
    with _deterministic(device), live_curves(logger, curves, progress.history) as record:
        while not progress.ended(p.steps, p.patience):
            rate = _epoch(learner, average, progress, p, *loaders)
            if place.rank == 0:
                _report(name, progress, p.steps, rate, device)
                record(progress.history[-1])
                save_state(state, progress.epochs - 1, owner, _state(learner, average, progress))
    network.load_state_dict(progress.weights)
    card = _card(config, progress, run=run, fold=fold, seed=seed, identity=identity)
    if place.rank == 0:
        tables.HISTORY.write(pd.DataFrame(progress.history), history or output / "history.csv")
        save_model(output, network, card)
        shutil.rmtree(state, ignore_errors=True)
    return card


def _learner(config: TrainingConfig, seed: int, device: torch.device, place: distributed.Place) -> Learner:
    """Build the network with random weights that depend on the seed, and its recipe."""
    torch.manual_seed(seed)
    network = build_model(config.model, config.data.bands).to(device)
    if place.size > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return Learner(
        network,
        Normalize(config.input, config.data, reuse=device.type == "cpu"),  # a batch is used before the next is read
        config.training,
        config.augmentation,
        config.training.steps,
        seed,
        precision=precision(config.compute.precision, device.type),
        place=place,
        compiled=config.compute.compile,
    )


@dataclass
class _Progress:
    """The progress of a training.

    Attributes:
        monitor: Figure that selects the epoch, `validation_jaccard` or `validation_location_mean`; None: the last epoch
            is kept, and there is no early stopping.
        history: Rows of `tables.HISTORY`, one per epoch, without validation figures where none was due.
        steps: Number of finished optimizer steps.
        kept: Number of the kept epoch: the one with the highest figure (the first of equals), or the last validated
            one; -1 before the first.
        figures: Validation figures of that epoch.
        weights: Weights of the network in that epoch, on the CPU.
    """

    monitor: str | None
    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    kept: int = -1
    figures: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    def ended(self, steps: int, patience: int) -> bool:
        """Return whether all steps are done, or the figure has not risen for `patience` epochs."""
        waited = self.epochs - 1 - self.kept
        return self.steps >= steps or (self.monitor is not None and self.kept >= 0 and waited >= patience)

    def validates(self, epochs: int) -> bool:
        """Return whether validation follows the present epoch of so many; it always follows the last one."""
        return self.monitor is not None or (epochs - 1 - self.epochs) % -(-epochs // VALIDATIONS) == 0

    def keep(self, figures: dict[str, float], network: nn.Module) -> None:
        """Add figures to the last epoch, and keep its weights if it is the best so far, or if there is no monitor."""
        self.history[-1] |= figures
        if self.kept < 0 or self.monitor is None or figures[self.monitor] > self.figures[self.monitor]:
            self.kept, self.figures = self.epochs - 1, figures
            self.weights = {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}


def _epoch(
    learner: Learner,
    average: EMA | None,
    progress: _Progress,
    params: TrainingParams,
    training: BatchLoader,
    validation: BatchLoader,
) -> float:
    """Train for one pass over the chips, or less if the wanted number of steps is reached, and validate if it is due.

    Returns:
        Training speed [chips/s], without validation.
    """
    start = time.perf_counter()
    training.epoch = progress.epochs
    steps = min(len(training), params.steps - progress.steps)
    batches = islice(training, steps)
    loss = learner.train_epoch(batches, progress.epochs, average.update if average else lambda: None)
    rate = steps * params.batch_size / (time.perf_counter() - start)
    progress.steps += steps
    due = progress.validates(-(-params.steps // len(training)))
    row = {"epoch": float(progress.epochs), "learning_rate": learner.learning_rate, "train_loss": loss}
    progress.history.append(row)
    if due:
        with average.applied() if average else nullcontext():
            progress.keep(learner.validate(validation), learner.network)
    progress.history[-1]["seconds"] = time.perf_counter() - start
    return rate


def _report(name: str, progress: _Progress, steps: int, rate: float, device: str) -> None:
    row = progress.history[-1]
    validation = (
        f", validation loss {row['validation_loss']:.4f}, Jaccard {row['validation_jaccard']:.4f}"
        if "validation_loss" in row
        else ""
    )
    memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory" if device == "cuda" else ""
    log.info(
        "%s epoch %d, step %d/%d: loss %.4f%s, %.1f s, %.0f chips/s%s",
        name, progress.epochs, progress.steps, steps, row["train_loss"], validation, row["seconds"], rate, memory,
    )  # fmt: skip


def _card(config: TrainingConfig, progress: _Progress, *, run: str, fold: int, seed: int, identity: str) -> ModelCard:
    """Describe the trained model; `identity` is the fingerprint of the training."""
    return ModelCard(
        architecture=config.model.architecture,
        encoder=config.model.encoder,
        decoder_channels=config.model.decoder_channels,
        border=config.model.border,
        bands=config.data.bands,
        nodata=config.data.nodata,
        chip_size=config.data.chip_size,
        input=config.input,
        run=run,
        fold=fold,
        seed=seed,
        fingerprint=identity,
        metrics={**progress.figures, "epoch": float(progress.kept)},
    )


def _state(learner: Learner, average: EMA | None, progress: _Progress) -> dict[str, Any]:
    return {
        "learner": learner.state_dict(),
        "average": average.state_dict() if average else None,
        "progress": vars(progress),
    }


def _restore(state: dict[str, Any], learner: Learner, average: EMA | None, progress: _Progress) -> None:
    learner.load_state_dict(state["learner"])
    if average:
        average.load_state_dict(state["average"])
    vars(progress).update(state["progress"])


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Make the same seed give the same weights; on a GPU, operations without a deterministic form only warn."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # every buffer is written before it is read
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _resident(compute: ComputeParams, store: ChipStore, split: Split, masks: Masks | None) -> bool:
    """Decide by `compute.device_cache` whether all chips stay in the GPU's memory."""
    if compute.device_cache != "auto":
        return compute.device_cache
    return fits(store, len(split.training) + len(split.validation), masks is not None and masks.soft)
