"""One training step, one validation step, and the schedule."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn

from cloudcover.augment.apply import augment_weighted
from cloudcover.config.sections import AugmentationParams, TrainingParams
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.losses.build import build_loss
from cloudcover.losses.targets import per_pixel
from cloudcover.models.normalize import Digital, Normalize
from cloudcover.runtime.files import derive_seed
from cloudcover.train.data import Batch
from cloudcover.train.distributed import gather, total

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class NotFiniteError(RuntimeError):
    """The loss is NaN or infinite; the message names the chips of the batch."""


class OutOfMemoryError(RuntimeError):
    """The GPU's memory does not hold even one chip at a time; the message says what to lower."""


def cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """Factor of the peak learning rate: linear warm-up, then half a cosine down to `floor` (Loshchilov & Hutter 2017).

    Args:
        step: optimizer step, from 0.
        steps: steps of the whole training.
        warmup: steps of the warm-up.
        floor: last learning rate as a share of the peak.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2


class SegmentationModule(pl.LightningModule):
    """A network with its loss, its metric (global Jaccard from sums) and its optimizer.

    Args:
        network: gives one logit per pixel, N x 1 x H x W.
        normalize: digital numbers to the network's input.
        training: the recipe.
        augmentation: random changes of training batches.
        steps: optimizer steps of the whole training.
        seed: of everything random in training.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: Normalize,
        training: TrainingParams,
        augmentation: AugmentationParams,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = normalize
        self.training_params = training
        self.augmentation = augmentation
        self.steps = steps
        self.seed = seed
        self.loss = build_loss(training.loss, training.label_smoothing)
        self.micro_batch = min(training.batch_size, training.micro_batch or training.batch_size)
        self.results: dict[str, float] = {}
        self.automatic_optimization = False  # the steps below decide how much memory a batch takes

    def forward(self, dn: Digital, percentiles: Tensor) -> Tensor:
        """Logits N x 1 x H x W of digital numbers."""
        inputs = self.normalize(dn, percentiles)
        logits: Tensor = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return logits

    def on_train_epoch_start(self) -> None:
        """Seeds the epoch: a resumed run repeats the epochs of an uninterrupted one."""
        seed = derive_seed(self.seed, "epoch", self.current_epoch)
        torch.manual_seed(derive_seed(seed, "process", self.global_rank) if self.global_rank else seed)
        self._generator = torch.Generator().manual_seed(
            derive_seed(self.seed, "augment", self.current_epoch, self.global_rank)
        )
        self._sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._last: tuple[Tensor, int, list[str]] | None = None

    def training_step(self, batch: Batch, index: int) -> None:
        """An optimizer step on a batch.

        Raises:
            NotFiniteError: names the chips of the batch.
            OutOfMemoryError: the GPU's memory is too small for one chip.
        """
        optimizer, schedule = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        chips = (batch["weight"] > 0).sum()
        batch["dn"], batch["target"], batch["weight"] = augment_weighted(
            batch["dn"],
            batch["target"],
            batch["weight"],
            self.augmentation,
            self._generator,
            nodata=self.normalize.nodata,
        )
        loss = self._gradients(batch, optimizer)
        # The loss of the step before: a GPU need not wait for this one before it gets more work.
        self.check_last_loss()
        self._last = loss, index, batch["chip_id"]
        self._clip(optimizer)
        optimizer.step()
        schedule.step()
        self._sums += torch.stack([loss.double() * chips, chips.double()])

    def _gradients(self, batch: Batch, optimizer: Any) -> Tensor:
        """Gradients of a batch, with smaller and smaller parts if memory does not suffice; returns the loss."""
        while True:
            optimizer.zero_grad()
            try:
                return self._accumulate(batch)
            except torch.OutOfMemoryError as error:
                if self.micro_batch == 1 or self.trainer.world_size > 1:
                    raise OutOfMemoryError(
                        f"the memory of {self.device} is too small for {self.micro_batch} chips of "
                        f"{tuple(batch['dn'][0].shape)}: lower training.micro_batch (or compute.prediction_batch, for "
                        "validation), take a smaller model.encoder, or set compute.precision to bf16"
                    ) from error
            self.micro_batch = (self.micro_batch + 1) // 2
            torch.cuda.empty_cache()
            log.warning(
                "out of memory: from now on %d chips per forward pass; the optimizer still steps every %d chips",
                self.micro_batch, self.training_params.batch_size,
            )  # fmt: skip

    def _accumulate(self, batch: Batch) -> Tensor:
        """Adds up the gradients of micro-batches.

        Each counts by its share of the valid, weighted pixels. So for losses that are means over pixels the sum is the
        loss of the whole batch; Lovász, Dice and Jaccard become means over micro-batches.
        """
        pixel_weight = ((batch["target"] != IGNORE_INDEX) * per_pixel(batch["weight"], batch["target"])).sum(dim=(1, 2))
        loss = torch.zeros((), device=self.device)
        for start in range(0, len(pixel_weight), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            logits = self(batch["dn"][part], batch["percentiles"][part]).float()
            together = gather(logits, batch["target"][part], batch["weight"][part])
            share = total(pixel_weight[part].sum()) / total(pixel_weight.sum()).clamp_min(
                torch.finfo(pixel_weight.dtype).tiny
            )
            value = self.loss(*together) * share
            self.manual_backward(value)
            loss += value.detach()
        return loss

    def _clip(self, optimizer: Any) -> None:
        if self.training_params.gradient_clip is None:
            return
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:  # fp16 scales the loss
            plugin.scaler.unscale_(optimizer.optimizer)
        self.clip_gradients(optimizer, self.training_params.gradient_clip, "norm")

    def check_last_loss(self) -> None:
        """Looks at the loss of the last step.

        Raises:
            NotFiniteError: it is NaN or infinite.
        """
        if self._last is None:
            return
        loss, index, chips = self._last
        if not math.isfinite(float(loss)):
            raise NotFiniteError(
                f"the loss is {float(loss)} in epoch {self.current_epoch}, batch {index}, chips {', '.join(chips)}: "
                "lower training.learning_rate, or look at these chips; the last good checkpoint is kept"
            )
        self._last = None

    def on_validation_epoch_start(self) -> None:
        """Empties the sums."""
        if self.trainer.state.fn == "fit":
            self.check_last_loss()
        self._validation = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._places: Tensor | None = None

    def validation_step(self, batch: Batch, index: int) -> None:
        """Adds a batch to the sums of loss and chips, and of intersections and unions by location."""
        target, weight = batch["target"], batch["weight"]
        logits = self(batch["dn"], batch["percentiles"]).float()
        loss = self.loss(*gather(logits, target, weight))
        valid = (target != IGNORE_INDEX) & (weight > 0)[:, None, None]
        predicted, cloud = (logits[:, 0] > 0) & valid, (target == 1) & valid
        chips = (weight > 0).sum()
        self._validation += torch.stack([(loss * chips).double(), chips.double()])
        if self._places is None:
            self._places = torch.zeros(batch["locations"], 2, dtype=torch.float64, device=self.device)
        pixels = [(predicted & cloud).sum(dim=(1, 2)), (predicted | cloud).sum(dim=(1, 2))]
        self._places.index_add_(0, batch["location"], torch.stack(pixels, dim=1).double())

    def on_validation_epoch_end(self) -> None:
        """Reduces the sums: mean loss per chip, global Jaccard, mean over locations; 1 where a union is empty."""
        assert self._places is not None
        (loss, chips), places = total(self._validation).tolist(), total(self._places)
        intersection, union = places.sum(dim=0).tolist()
        jaccards = torch.where(places[:, 1] > 0, places[:, 0] / places[:, 1].clamp_min(1), 1.0)
        self.results = {
            "validation_loss": loss / chips,
            "validation_jaccard": intersection / union if union else 1.0,
            "validation_location_mean": float(jaccards.mean()),
        }
        self.log_dict(self.results)

    def train_loss(self) -> float:
        """Mean training loss per chip of the current epoch."""
        loss, chips = total(self._sums).tolist()
        return float(loss / chips)

    def configure_optimizers(self) -> Any:
        """Optimizer and a schedule that moves with every step."""
        p = self.training_params
        extra = {"momentum": 0.9} if p.optimizer == "sgd" else {}
        optimizer = OPTIMIZERS[p.optimizer](
            self.network.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay, **extra
        )
        floor = min(1.0, p.min_learning_rate / p.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: cosine(step, self.steps, p.warmup_steps, floor)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
