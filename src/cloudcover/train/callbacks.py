"""What happens around epochs: the learning curve, the best weights, and a state to resume from."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cloudcover.runtime.files import atomic, sha256, write_text
from cloudcover.train.module import SegmentationModule

log = logging.getLogger(__name__)


class Progress(pl.Callback):
    """Writes a line per epoch to the log and keeps the learning curve (`tables.HISTORY`)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.history: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Adds the epoch."""
        assert isinstance(module, SegmentationModule)
        row = {
            "epoch": float(trainer.current_epoch),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train_loss": module.train_loss(),
            **module.results,
            "seconds": time.perf_counter() - self._start,
        }
        self.history.append(row)
        if not trainer.is_global_zero:
            return
        log.info(
            "%s epoch %d/%d: loss %.4f, validation loss %.4f, Jaccard %.4f, %.1f s",
            self.name, trainer.current_epoch + 1, trainer.max_epochs, row["train_loss"], row["validation_loss"],
            row["validation_jaccard"], row["seconds"],
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.history = list(state["history"])


class EMA(pl.Callback):
    """Exponential moving average of the weights; validation and the best weights use the average.

    Polyak & Juditsky 1992. The decay grows with the steps, min(decay, (1 + t) / (10 + t)), so that early averages
    are not dominated by the random start.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Moves a resumed average to the device of the weights: checkpoints are read to the CPU."""
        self.average = {name: value.to(module.device) for name, value in self.average.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Moves the average towards the weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, value in _network(module).state_dict().items():
                if name not in self.average or not value.is_floating_point():
                    self.average[name] = value.detach().clone()
                else:
                    self.average[name].lerp_(value, 1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Puts the average into the network."""
        if self.average:
            network = _network(module)
            self._own = {k: v.detach().clone() for k, v in network.state_dict().items()}
            network.load_state_dict(self.average)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Puts the trained weights back; it must come after `BestWeights`."""
        if self._own:
            _network(module).load_state_dict(self._own)
            self._own = {}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.steps = state["steps"]
        self.average = state["average"]


class BestWeights(pl.Callback):
    """Keeps weights and validation figures of the epoch with the highest figure, the first of equals.

    Args:
        figure: `validation_jaccard` or `validation_location_mean`.
    """

    def __init__(self, figure: str) -> None:
        self.figure = figure
        self.figures = {figure: -1.0}
        self.epoch = -1
        self.weights: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Copies the weights if they are the best."""
        assert isinstance(module, SegmentationModule)
        if module.results[self.figure] > self.figures[self.figure]:
            self.figures = module.results
            self.epoch = trainer.current_epoch
            self.weights = {k: v.detach().to("cpu", copy=True) for k, v in _network(module).state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"figures": self.figures, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.figures, self.epoch, self.weights = state["figures"], state["epoch"], state["weights"]


class Checkpoint(pl.Callback):
    """Writes the training state after every epoch, atomically, with its hash, and keeps the last two.

    It must be the last callback: what it saves includes what the others did in the epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Saves the epoch."""
        path = self.folder / f"epoch-{trainer.current_epoch:05d}.ckpt"
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path, weights_only=False)  # takes part, writes nothing
            return
        with atomic(path) as part:
            trainer.save_checkpoint(part, weights_only=False)
            digest = sha256(part)
        write_text(path.with_suffix(".sha256"), digest)
        for old in sorted(self.folder.glob("epoch-*.ckpt"))[:-2]:
            old.with_suffix(".sha256").unlink(missing_ok=True)
            old.unlink()


def last_state(folder: Path) -> Path | None:
    """The newest training state whose hash is right, or None; a damaged one is named in the log and passed over."""
    for path in sorted(folder.glob("epoch-*.ckpt"), reverse=True):
        seal = path.with_suffix(".sha256")
        if seal.exists() and seal.read_text() == sha256(path):
            return path
        log.warning("%s is damaged; going back to the state before it", path)
    return None


def _network(module: pl.LightningModule) -> nn.Module:
    assert isinstance(module, SegmentationModule)
    network: nn.Module = module.network
    return network
