"""A network with its recipe: training epoch, validation pass, and schedule."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cloudcover.augment.apply import augment_weighted
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.sections import TrainingParams
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.losses.build import build_loss
from cloudcover.losses.targets import per_pixel
from cloudcover.models.normalize import Digital, Normalize
from cloudcover.models.upsample import repeat_pixels
from cloudcover.runtime.device import is_out_of_memory
from cloudcover.runtime.files import derive_seed
from cloudcover.train.data import Batch
from cloudcover.train.distributed import Place, gather, share_buffers, total

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NotFiniteError(RuntimeError):
    """A loss that is NaN or infinite; the message names the chips of the batch."""


class OutOfMemoryError(RuntimeError):
    """Memory that is too small even for one chip at a time; the message says what to lower."""


def cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """Return the factor of the peak learning rate: warm-up, then half a cosine to `floor` (Loshchilov & Hutter 2017).

    Args:
        step: Optimizer step, from 0.
        steps: Number of steps of the whole training.
        warmup: Number of warm-up steps.
        floor: Final learning rate as a share of the peak.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2


class Learner:
    """A network with its loss, its metric (global Jaccard from sums) and its optimizer.

    Args:
        network: Network on its device that gives one logit per pixel, N x 1 x H x W.
        normalize: Module that converts digital numbers to the network's input.
        training: Training recipe.
        augmentation: Random augmentation of training batches.
        steps: Number of optimizer steps of the whole training.
        seed: Random seed of the training.
        precision: `fp32`, `bf16` or `fp16`.
        place: Position of this process in a distributed training.
        compiled: Whether full batches run through `torch.compile`.

    Attributes:
        micro_batch: Chips per forward pass; halved when memory is insufficient.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: Normalize,
        training: TrainingParams,
        augmentation: AugmentationParams,
        steps: int,
        seed: int,
        *,
        precision: str = "fp32",
        place: Place | None = None,
        compiled: bool = False,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(network.parameters()).device
        self.normalize = normalize.to(self.device)
        self.params = training
        self.augmentation = augmentation
        self.seed = seed
        self.place = place or Place()
        self.loss = build_loss(training.loss, training.label_smoothing)
        self.micro_batch = min(training.batch_size, training.micro_batch or training.batch_size)
        self._dtype = DTYPES[precision]
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self._shared = DistributedDataParallel(network) if self.place.size > 1 else network
        # Only the shape of a full batch is compiled, because every further shape would take as long again.
        if compiled:
            repeat_pixels(network)
        self._compiled: Any = torch.compile(self._shared, dynamic=False) if compiled else None
        self._compiled_shape: torch.Size | None = None
        self.optimizer = self._optimizer()
        floor = min(1.0, training.min_learning_rate / training.learning_rate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: cosine(step, steps, training.warmup_steps, floor)
        )

    def _optimizer(self) -> torch.optim.Optimizer:
        p = self.params
        extra = {"momentum": 0.9} if p.optimizer == "sgd" else {}
        optimizer: torch.optim.Optimizer = OPTIMIZERS[p.optimizer](
            self.network.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay, **extra
        )
        return optimizer

    def forward(self, dn: Digital, percentiles: Tensor) -> Tensor:
        """Compute logits N x 1 x H x W float32 from digital numbers."""
        inputs = self.normalize(dn, percentiles).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            logits: Tensor = self._of_shape(inputs.shape)(inputs)
        return logits.float()

    def _of_shape(self, shape: torch.Size) -> Any:
        """Return the fastest form of the network for a batch of this shape."""
        if not self.network.training:
            return self.network
        if self._compiled is None:
            return self._shared
        self._compiled_shape = self._compiled_shape or shape
        return self._compiled if shape == self._compiled_shape else self._shared

    def train_epoch(self, batches: Iterable[Batch], epoch: int, after_step: Callable[[], None]) -> float:
        """Learn from the batches of an epoch.

        Args:
            batches: Batches on the device of the network.
            epoch: Number of the epoch, from 0; it seeds the randomness, so a resumed run equals an uninterrupted one.
            after_step: Function called after each optimizer step.

        Returns:
            Mean loss per chip, measured before each step.

        Raises:
            NotFiniteError: The loss is NaN or infinite; the message names the chips of the batch.
            OutOfMemoryError: The GPU's memory is too small for one chip.
        """
        self._begin(epoch)
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        last: tuple[Tensor, int, list[str]] | None = None
        for index, batch in enumerate(batches):
            chips = (batch["weight"] > 0).sum()
            batch["dn"], batch["target"], batch["weight"] = augment_weighted(
                batch["dn"],
                batch["target"],
                batch["weight"],
                self.augmentation,
                self._generator,
                nodata=self.normalize.nodata,
                of_batch=self._of_batch,
                pseudo=batch.get("pseudo"),
            )
            loss = self._gradients(batch)
            # Check the loss of the previous step: by now the GPU is busy with this one and does not become idle.
            _check(last, epoch)
            last = loss, index, batch["chip_id"]
            self._step()
            after_step()
            sums += torch.stack([loss.double() * chips, chips.double()])
        _check(last, epoch)
        summed, chips_seen = total(sums).tolist()
        return float(summed / chips_seen)

    def _begin(self, epoch: int) -> None:
        """Seed all randomness; draws that must agree in all processes have a separate generator."""
        self.network.train()
        rank = self.place.rank
        seed = derive_seed(self.seed, "epoch", epoch)
        torch.manual_seed(derive_seed(seed, "process", rank) if rank else seed)
        self._generator = torch.Generator().manual_seed(derive_seed(self.seed, "augment", epoch, rank))
        self._of_batch = self._generator
        if self.place.size > 1:
            self._of_batch = torch.Generator().manual_seed(derive_seed(self.seed, "augment-batch", epoch))

    def _gradients(self, batch: Batch) -> Tensor:
        """Compute the gradients of a batch, in smaller parts if memory is insufficient; return the loss."""
        while True:
            self.optimizer.zero_grad()
            try:
                return self._accumulate(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_batch == 1 or self.place.size > 1:
                    raise self._too_small(self.micro_batch, batch) from error
            self.micro_batch = (self.micro_batch + 1) // 2
            self._compiled_shape = None
            torch.cuda.empty_cache()
            log.warning(
                "out of memory: from now on %d chips per forward pass; the optimizer still steps every %d chips",
                self.micro_batch, self.params.batch_size,
            )  # fmt: skip

    def _too_small(self, chips: int, batch: Batch) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"there is not enough memory on {self.device} for {chips} chips of {tuple(batch['dn'][0].shape)}: "
            "lower training.micro_batch (or compute.prediction_batch, for validation), take a smaller model.encoder, "
            "or set compute.precision to bf16"
        )

    def _accumulate(self, batch: Batch) -> Tensor:
        """Accumulate the gradients of micro-batches.

        Each is weighted by its share of the valid, weighted pixels. So for losses that are means over pixels, the sum
        is the loss of the whole batch. Lovász, Dice and Jaccard become means over micro-batches.
        """
        pixel_weight = ((batch["target"] != IGNORE_INDEX) * per_pixel(batch["weight"], batch["target"])).sum(dim=(1, 2))
        loss = torch.zeros((), device=self.device)
        for part in even_parts(len(pixel_weight), self.micro_batch):
            logits = self.forward(batch["dn"][part], batch["percentiles"][part])
            together = gather(logits, batch["target"][part], batch["weight"][part])
            share = total(pixel_weight[part].sum()) / total(pixel_weight.sum()).clamp_min(
                torch.finfo(pixel_weight.dtype).tiny
            )
            value = self.loss(*together) * share
            self._scaler.scale(value).backward()  # type: ignore[no-untyped-call]
            loss += value.detach()
        return loss

    def _step(self) -> None:
        if self.params.gradient_clip is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.params.gradient_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._schedule.step()

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Compute mean loss per chip, global Jaccard, and mean Jaccard over locations; 1 if a union is empty.

        Args:
            batches: Batches on the device of the network.

        Raises:
            OutOfMemoryError: The GPU's memory is too small for a batch.
        """
        share_buffers(self.network.buffers())
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        places: Tensor | None = None
        for batch in batches:
            target, weight = batch["target"], batch["weight"]
            try:
                logits = self.forward(batch["dn"], batch["percentiles"])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise self._too_small(len(target), batch) from error
            loss = self.loss(*gather(logits, target, weight))
            valid = (target != IGNORE_INDEX) & (weight > 0)[:, None, None]
            predicted, cloud = (logits[:, 0] > 0) & valid, (target == 1) & valid
            chips = (weight > 0).sum()
            sums += torch.stack([(loss * chips).double(), chips.double()])
            if places is None:
                places = torch.zeros(batch["locations"], 2, dtype=torch.float64, device=self.device)
            pixels = [(predicted & cloud).sum(dim=(1, 2)), (predicted | cloud).sum(dim=(1, 2))]
            places.index_add_(0, batch["location"], torch.stack(pixels, dim=1).double())
        assert places is not None
        (loss_sum, seen), places = total(sums).tolist(), total(places)
        intersection, union = places.sum(dim=0).tolist()
        jaccards = torch.where(places[:, 1] > 0, places[:, 0] / places[:, 1].clamp_min(1), 1.0)
        return {
            "validation_loss": loss_sum / seen,
            "validation_jaccard": intersection / union if union else 1.0,
            "validation_location_mean": float(jaccards.mean()),
        }

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Return the state needed to resume training."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "optimizer": self.optimizer,
            "schedule": self._schedule,
            "scaler": self._scaler,
        }


def even_parts(count: int, most: int) -> list[slice]:
    """Divide `count` into as few parts of at most `most` as possible, whose sizes differ by at most one."""
    parts = -(-count // most)
    ends = [count * number // parts for number in range(parts + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _check(step: tuple[Tensor, int, list[str]] | None, epoch: int) -> None:
    """Check the loss of a step, given with its batch number and chips; raise `NotFiniteError`."""
    if step is None:
        return
    loss, index, chips = step
    if not math.isfinite(float(loss)):
        raise NotFiniteError(
            f"the loss is {float(loss)} in epoch {epoch}, batch {index}, chips {', '.join(chips)}: "
            "lower training.learning_rate, or check these chips; the last good checkpoint is kept"
        )
