"""BatchLoader of chips and labels, gathered from memory maps by a thread of the training process.

A gather of whole chips is faster than worker processes that send single ones (measured in `benchmarks/loader.py`), and
copying lets other threads run: the next batches are ready before the step that they are for. The order of an epoch
follows from seed and epoch alone, so a resumed run sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from cloudcover.data.store import ChipStore
from cloudcover.runtime.files import derive_seed
from cloudcover.runtime.prefetch import prefetch
from cloudcover.train.split import Split

Batch = dict[str, Any]
"""Keys: dn (N x B x H x W uint16, or on a CPU N views of the store), target (N x H x W, uint8 of {0, 1, 255}, or
float32 shares of cloud and 255 in every batch of a training with soft labels), weight (N float32),
percentiles (N x B x 2 float32 [DN]), location (N int64, number of the place), locations (how many),
chip_id (list of N)."""


AHEAD = 2
"""BatchLoader that are gathered before they are needed."""


class Masks(Protocol):
    """Where labels come from that are not the human ones: `pseudo_masks.PseudoLabels`, or `truth.TrueMasks`.

    Attributes:
        soft: whether `targets` are shares of cloud.
    """

    soft: bool

    def targets(self, chip_ids: list[str]) -> NDArray[np.uint8 | np.float32]:
        """What to learn: N x H x W, uint8 of {0, 1, 255}, or float32 shares of cloud and 255 for unknown if `soft`."""


class BatchLoader:
    """Iterates over batches of an epoch.

    Args:
        store: the packed chips.
        items: chip_id, label and weight, as in `split.Split`.
        size: chips per batch.
        seed: of the order; None keeps the order of `items`.
        epoch: each has its own order.
        masks: of the items whose label is not the human one.
        rank: number of this process.
        processes: how many share a batch, chip by chip in turn. Where that can't be even, some get a chip of weight 0,
            which counts nowhere, so that all have equally many.
        pin: put batches into memory from which a GPU copies by itself. Otherwise chips stay in the memory map, and
            whoever scales them reads them there: a copy would cost a third of the way to the network.
    """

    def __init__(
        self,
        store: ChipStore,
        items: pd.DataFrame,
        size: int,
        seed: int | None = None,
        masks: Masks | None = None,
        *,
        epoch: int = 0,
        rank: int = 0,
        processes: int = 1,
        pin: bool = False,
    ) -> None:
        self.store = store
        self.items = items.reset_index(drop=True)
        self.size = size
        self.seed = seed
        self.masks = masks
        # Of all batches or of none: processes that share a batch must agree on its type.
        self.soft = masks is not None and masks.soft and bool((items["label"] != "human").any())
        self.locations = pd.Index(store.index.loc[items["chip_id"], "location"].unique())
        self.rank = rank
        self.processes = processes
        self.pin = pin
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.items) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self.items))
        if self.seed is not None:
            np.random.default_rng(derive_seed(self.seed, "order", self.epoch)).shuffle(order)
        batches = (self._share(order[start : start + self.size]) for start in range(0, len(order), self.size))
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            yield from prefetch(pool, self._batch, batches, AHEAD)

    def _share(self, order: NDArray[np.int64]) -> pd.DataFrame:
        """The items of a batch that this process takes."""
        rounds = -(-len(order) // self.processes)
        items = self.items.iloc[np.resize(order, rounds * self.processes)].reset_index(drop=True)
        items.loc[len(order) :, "weight"] = 0.0
        return items.iloc[self.rank :: self.processes]

    def _batch(self, items: pd.DataFrame) -> Batch:
        chip_ids = items["chip_id"].tolist()
        target: NDArray[np.uint8 | np.float32] = self.store.labels(chip_ids)
        if self.soft:
            target = target.astype(np.float32)
        other = (items["label"] != "human").to_numpy()
        if other.any():
            assert self.masks is not None, "labels that are not the human ones need masks"
            target[other] = self.masks.targets([c for c, o in zip(chip_ids, other, strict=True) if o])
        arrays = {
            "target": target,
            "weight": items["weight"].to_numpy(np.float32),
            "percentiles": self.store.percentiles(chip_ids),
            "location": self.locations.get_indexer(self.store.index.loc[chip_ids, "location"]),
        }
        batch: Batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.pin:
            batch["dn"] = torch.from_numpy(self.store.chips(chip_ids))
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        else:
            batch["dn"] = self.store.mapped(chip_ids)
        return {**batch, "chip_id": chip_ids, "locations": len(self.locations)}


class ChipDataModule(pl.LightningDataModule):
    """Training and validation batches of a run, made when its processes know their numbers.

    Args:
        store: the packed chips.
        split: what to learn from and what to validate on.
        masks: of the chips whose label is not the human one.
        batch_size: chips per training batch.
        validation_batch_size: chips per validation batch.
        seed: of the order of training.
        pin: see `BatchLoader`.
    """

    def __init__(
        self,
        store: ChipStore,
        split: Split,
        masks: Masks | None,
        batch_size: int,
        validation_batch_size: int,
        seed: int,
        *,
        pin: bool,
    ) -> None:
        super().__init__()
        self.store, self.split, self.masks, self.seed, self.pin = store, split, masks, seed, pin
        self.batch_size, self.validation_batch_size = batch_size, validation_batch_size

    def train_dataloader(self) -> BatchLoader:
        """BatchLoader in the order of the epoch; asked for in each."""
        return self._batches(self.split.training, self.batch_size, self.seed)

    def val_dataloader(self) -> BatchLoader:
        """BatchLoader in the order of the table."""
        return self._batches(self.split.validation, self.validation_batch_size, None)

    def _batches(self, items: pd.DataFrame, size: int, seed: int | None) -> BatchLoader:
        assert self.trainer is not None
        return BatchLoader(
            self.store,
            items,
            size,
            seed,
            self.masks,
            epoch=self.trainer.current_epoch,
            rank=self.trainer.global_rank,
            processes=self.trainer.world_size,
            pin=self.pin,
        )
