"""Chips per second from disk to a scaled, flipped float batch, against the original's dataset class.

    python benchmarks/loader.py --quick
    python benchmarks/loader.py --json loader.json

Chips of 512 pixels, warm in the page cache: four bands in this project, three in the original's way (its favour). One
core is one pinned process, by its processor time; two cores are two processes here, and a `DataLoader` with one or two
workers (the faster counts) there. "Transport" gathers uint16 chips and labels and leaves scaling and flips to a GPU.
The ways take turns; the best round of each counts. A plain copy of the chips is the floor of transport. The work is
done on the CPU whatever `--device` says.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a core is a process here

import numpy as np
import torch
from baselines import original_input
from chips512 import SIZE, make

from cloudcover.augment.apply import augment_weighted
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.sections import DataParams, InputParams
from cloudcover.data.store import ChipStore
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.files import write_json

BATCH = 16
SECONDS = 1.0
"""Minimum duration of a measurement [s]; epochs are always measured completely."""


@cache
def packed(store: Path) -> tuple[Callable[[list[str]], object], ...]:
    """Return three ways on reused memory: the gather for a GPU, all work of a CPU before the network, a plain copy."""
    chips, scaler = ChipStore(store), Normalize(InputParams(), DataParams(), reuse=True)  # type: ignore[call-arg]
    dn, labels = np.zeros((BATCH, 4, SIZE, SIZE), np.uint16), np.zeros((BATCH, SIZE, SIZE), np.uint8)
    other, flips = dn.copy(), AugmentationParams()  # type: ignore[call-arg]
    generator = torch.Generator().manual_seed(0)

    def transport(ids: list[str]) -> object:
        return chips.chips(ids, out=dn), chips.labels(ids, out=labels), chips.percentiles(ids)

    def batch(ids: list[str]) -> object:
        percentiles, masks = chips.percentiles(ids), torch.from_numpy(chips.labels(ids, out=labels))
        views, masks, weight = augment_weighted(chips.mapped(ids), masks, torch.ones(len(ids)), flips, generator)
        return scaler(views, percentiles), masks, weight

    def copy(ids: list[str]) -> object:
        np.copyto(other[: len(ids)], dn[: len(ids)])
        return other

    return transport, batch, copy


@cache
def originals(raw: Path, workers: int) -> torch.utils.data.DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Return the original's loader, kept with its workers for the next round."""
    torch.manual_seed(0)
    return original_input.loader(raw, BATCH, workers)


def epochs(way: str, raw: Path, store: Path, seed: int) -> Iterator[int]:
    """Run a way forever; yield the number of chips of each batch."""
    if way.startswith("original"):
        while True:
            for images, _ in originals(raw, int(way[-1])):
                yield len(images)
    step = packed(store)[("transport", "batch", "copy").index(way)]
    ids, rng = ChipStore(store).index["chip_id"].tolist(), np.random.default_rng(seed)
    while True:
        order = rng.permutation(ids).tolist()
        for chosen in ChipStore.batches(order, BATCH):
            step(chosen)
            yield len(chosen)


def rate(way: str, cores: set[int], raw: Path, store: Path, seed: int, alone: bool) -> float:
    """Measure chips per second of a way in this process on the given cores, without the first epoch.

    On one core that is per second of processor time, which other programs on the machine do not change.
    """
    os.sched_setaffinity(0, cores)
    clock = time.process_time if alone else time.perf_counter
    source, total = epochs(way, raw, store, seed), len(ChipStore(store))
    warm = 0
    while warm < (total if way.startswith("original") else 2 * total):
        warm += next(source)
    start, done = clock(), 0
    while done < total or clock() - start < SECONDS:
        done += next(source)
    return done / (clock() - start)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32 chips and one round instead of 64 and three")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="accepted for uniformity; this path runs on the CPU")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--set", type=Path, default=Path("benchmarks/out"), help="folder for the chips")
    options = parser.parse_args()
    raw, store = make(options.set, 32 if options.quick else 64, options.seed)
    cores = sorted(os.sched_getaffinity(0))[:2]
    one, two = {cores[0]}, set(cores)
    plan = [(way, one, 1) for way in ("original0", "batch", "transport", "copy")]
    if len(cores) == 2:
        plan += [("original1", two, 1), ("original2", two, 1), ("batch", two, 2), ("transport", two, 2)]
    rates: dict[tuple[str, int], float] = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for _ in range(1 if options.quick else 3):
            for way, where, processes in plan:
                pins = [{core} for core in cores] if processes == 2 else [where]
                jobs = [pool.submit(rate, way, pin, raw, store, options.seed, len(where) == 1) for pin in pins]
                key = way, len(where)
                rates[key] = max(rates.get(key, 0), sum(job.result() for job in jobs))

    figures = {f"chips_per_s_{way}_{n}": value for (way, n), value in rates.items()}
    figures["share_of_floor_transport"] = rates["transport", 1] / rates["copy", 1]
    print(f"{'':32} {'one core':>10} {'two cores':>10}   chips/s")
    original_two = max(rates.get(("original1", 2), 0), rates.get(("original2", 2), 0))
    print(f"{'original (3 bands)':32} {rates['original0', 1]:10.0f} {original_two:10.0f}")
    for way, name in (("batch", "this project (4 bands)"), ("transport", "uint16 transport (4 bands)")):
        print(f"{name:32} {rates[way, 1]:10.0f} {rates.get((way, 2), 0):10.0f}")
        key = "ratio_loader" if way == "batch" else "ratio_transport"
        figures[key] = rates[way, 1] / rates["original0", 1]
        if original_two:
            figures[f"{key}_two_cores"] = rates[way, 2] / original_two
        print(f"{key:32} {figures[key]:10.1f} {figures.get(f'{key}_two_cores', 0):10.1f}")
    print(f"{'plain copy of the chips (floor)':32} {rates['copy', 1]:10.0f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
