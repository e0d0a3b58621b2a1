"""Batches of chips and labels, gathered from memory maps by a thread or kept in GPU memory.

Gathering whole chips is faster than worker processes that send single ones (measured in `benchmarks/loader.py`).
Copying releases the GIL, so the next batches are ready before their step. The order of an epoch depends only on seed
and epoch, so a resumed run sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudcover.data.store import ChipStore
from cloudcover.runtime.files import derive_seed
from cloudcover.runtime.prefetch import prefetch

Batch = dict[str, Any]
"""Keys: dn (N x B x H x W uint16, or on a CPU N views of the store), target (N x H x W, uint8 of {0, 1, 255}, or
float32 shares of cloud and 255 in every batch of a training with soft labels), weight (N float32),
percentiles (N x B x 2 float32 [DN]), location (N int64, number of the place), locations (how many),
chip_id (list of N), pseudo (list of N, whether the chip is pseudo-labelled)."""


AHEAD = 2
"""Number of batches gathered in advance."""

CACHE_SHARE = 0.5
"""Largest share of a GPU's free memory for chips; the rest is for the network."""


class Masks(Protocol):
    """Labels other than the given ones: `masks.pseudo.PseudoLabels` or `masks.truth.TrueMasks`.

    Attributes:
        soft: Whether `targets` are shares of cloud.
    """

    soft: bool

    def targets(self, chip_ids: list[str]) -> NDArray[np.uint8 | np.float32]:
        """Return training targets N x H x W: uint8 of {0, 1, 255}, or, if `soft`, float32 shares of cloud and 255."""


class _Share(NamedTuple):
    """The part of a batch that a process works on: rows of the items, and their weights."""

    rows: NDArray[np.int64]
    weight: NDArray[np.float32]


class BatchLoader:
    """An iterable over the batches of an epoch.

    Args:
        store: The packed chips.
        items: Table of chip_id, label and weight, as in `split.Split`.
        size: Chips per batch. In random order, that is in training, a last batch of one chip is merged with the one
            before, because batch norm has no variance for a single value.
        seed: Random seed for the order; None keeps the order of `items`.
        masks: Masks of the items whose label is not the given one.
        epoch: Epoch, which determines the order; may be set between two iterations.
        rank: Number of this process.
        processes: Number of processes that share a batch, chip by chip in turn. If the batch cannot be shared evenly,
            some processes get a chip of weight 0, which is ignored, so that all have the same number.
        device: Destination of the batches. On a CPU, chips stay in the memory map until they are scaled, because a copy
            would take a third of the loading time. To a GPU, they are copied in parallel to its work.
        resident: Keep all chips in the memory of the device (see `fits`); batches are then selected there.
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
        device: str = "cpu",
        resident: bool = False,
    ) -> None:
        self.store = store
        self.size = size
        self.seed = seed
        self.masks = masks
        self.epoch = epoch
        self.rank = rank
        self.processes = processes
        self.device = torch.device(device)
        self.resident = resident
        self._chip_ids = items["chip_id"].to_numpy(object)
        self._weight = items["weight"].to_numpy(np.float32)
        self._other = (items["label"] != "human").to_numpy()
        self._pseudo = (items["label"] == "pseudo").to_numpy()
        # The type applies to all batches, because processes that share a batch must agree on it.
        self._soft = masks is not None and masks.soft and bool(self._other.any())
        places = store.index.loc[items["chip_id"], "location"]
        self._location, names = pd.factorize(places)
        self._locations = len(names)
        self._stream: torch.cuda.Stream | None = None
        self._kept: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._parts())

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(len(self._chip_ids))
        if self.seed is not None:
            np.random.default_rng(derive_seed(self.seed, "order", self.epoch)).shuffle(order)
        shares = [self._share(order[part]) for part in self._parts()]
        if self.resident:
            yield from self._pick(shares)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            for batch in prefetch(pool, self._batch, shares, AHEAD):
                yield self._arrived(batch)

    def _parts(self) -> list[slice]:
        """Return where each batch is in the order of the epoch."""
        count = len(self._chip_ids)
        starts = list(range(0, count, self.size))
        if self.seed is not None and len(starts) > 1 and count % self.size == 1:
            starts.pop()
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]

    def _share(self, order: NDArray[np.int64]) -> _Share:
        rounds = -(-len(order) // self.processes)
        rows = np.resize(order, rounds * self.processes)
        weight = self._weight[rows]
        weight[len(order) :] = 0.0
        return _Share(rows[self.rank :: self.processes], weight[self.rank :: self.processes])

    def _batch(self, share: _Share) -> Batch:
        chip_ids = self._chip_ids[share.rows].tolist()
        target: NDArray[np.uint8 | np.float32] = self.store.labels(chip_ids)
        if self._soft:
            target = target.astype(np.float32)
        other = self._other[share.rows]
        if other.any():
            assert self.masks is not None, "labels that are not the human ones need masks"
            target[other] = self.masks.targets([c for c, o in zip(chip_ids, other, strict=True) if o])
        arrays = {
            "target": target,
            "weight": share.weight,
            "percentiles": self.store.percentiles(chip_ids),
            "location": self._location[share.rows],
        }
        batch: Batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.device.type == "cpu":
            batch["dn"] = self.store.mapped(chip_ids)
        else:
            batch["dn"] = self._pinned(chip_ids)
            self._send(batch)
        return {**batch, **self._named(share.rows)}

    def _named(self, rows: NDArray[np.int64]) -> Batch:
        """Return the part of a batch that never goes to a device."""
        chip_ids, pseudo = self._chip_ids[rows].tolist(), self._pseudo[rows].tolist()
        return {"chip_id": chip_ids, "pseudo": pseudo, "locations": self._locations}

    def _pinned(self, chip_ids: list[str]) -> Tensor:
        """Gather chips in pinned memory, which a GPU can copy from by itself; torch reuses it after the copy."""
        shape = self.store.chips(chip_ids[:1]).shape[1:]
        chips = torch.empty((len(chip_ids), *shape), dtype=torch.uint16, pin_memory=True)
        self.store.chips(chip_ids, chips.numpy())
        return chips

    def _send(self, batch: Batch) -> None:
        """Start copying a batch to the GPU, on a separate stream."""
        self._stream = self._stream or torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            for name, tensor in batch.items():
                batch[name] = tensor.pin_memory().to(self.device, non_blocking=True)
            batch["arrived"] = self._stream.record_event()

    def _arrived(self, batch: Batch) -> Batch:
        """Let the GPU, but not this thread, wait for the copies of a batch."""
        if (event := batch.pop("arrived", None)) is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            for value in batch.values():
                if isinstance(value, Tensor):
                    value.record_stream(stream)
        return batch

    def _pick(self, shares: list[_Share]) -> Iterator[Batch]:
        """Select batches in the memory of the device; the order of the epoch is sent there once."""
        kept = self._kept = self._kept or self._load()
        rows = torch.from_numpy(np.concatenate([share.rows for share in shares])).to(self.device)
        weight = torch.from_numpy(np.concatenate([share.weight for share in shares])).to(self.device)
        sizes = [len(share.rows) for share in shares]
        parts = zip(shares, torch.split(rows, sizes), torch.split(weight, sizes), strict=True)
        for share, chosen, weights in parts:
            batch: Batch = {name: values.index_select(0, chosen) for name, values in kept.items()}
            batch["dn"] = batch["dn"].view(torch.uint16)
            yield {**batch, "weight": weights, **self._named(share.rows)}

    def _load(self) -> dict[str, Tensor]:
        """Load all items to the device; chips become int16 of the same bits, because torch cannot index uint16."""
        count = len(self._chip_ids)
        kept: dict[str, Tensor] = {}
        parts = (_Share(rows, self._weight[rows]) for rows in np.array_split(np.arange(count), -(-count // 64)))
        done = 0
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            for batch in prefetch(pool, self._batch, parts, AHEAD):
                number = len(batch["weight"])
                for name, value in self._arrived(batch).items():
                    if name in ("target", "percentiles", "location", "dn"):
                        part = torch.from_numpy(np.stack(value)) if isinstance(value, list) else value
                        part = part.view(torch.int16) if part.dtype == torch.uint16 else part
                        if name not in kept:
                            kept[name] = torch.empty((count, *part.shape[1:]), dtype=part.dtype, device=self.device)
                        kept[name][done : done + number] = part
                done += number
        return kept


def fits(store: ChipStore, chips: int, soft: bool) -> bool:
    """Return whether chips and their labels fit into GPU memory in addition to the network (`CACHE_SHARE`).

    Args:
        store: The packed chips.
        chips: Number of chips.
        soft: Whether labels are float32.
    """
    bands, height, width = store.chips(store.index["chip_id"][:1].tolist()).shape[1:]
    needed = chips * height * width * (2 * bands + (4 if soft else 1))
    free, _ = torch.cuda.mem_get_info()
    return bool(needed <= CACHE_SHARE * free)
