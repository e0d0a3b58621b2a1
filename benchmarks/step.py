"""Time of a training step of `train()` itself, against the original's loop, and the share lost to input.

    python benchmarks/step.py --quick
    python benchmarks/step.py --device cuda --batch 32 --chips 480 --epochs 4 --workers 10 --json step.json

The recipe is config/presets/full.yaml with random weights: U-Net with `--encoder`, chips of 512 pixels, Adam, Lovász,
clipping. The original's loop is fp32 with a `DataLoader`, Adam, Lovász by sorting and clipping. A step is timed from
one optimizer step to the next within an epoch; the median counts, and the best round of each way, which take turns.
`input_loss_share` compares a way with the same steps on one batch that stays on the device. `--compile` and
`--no-cache` set `compute.compile` and `compute.device_cache`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

# isort: split
import pandas as pd
import torch
from chips512 import make

from cloudcover.config.params import load
from cloudcover.config.training import TrainingConfig
from cloudcover.data.shards import array_path
from cloudcover.data.store import ChipStore
from cloudcover.runtime.files import write_json
from cloudcover.train import run
from cloudcover.train.data import Batch, BatchLoader
from cloudcover.train.learner import Learner
from cloudcover.train.split import Split

WARM_UP = 2
"""Number of steps of each epoch that are not counted."""
WAYS = {
    "train": "train()",
    "no_input": "train(), one batch on the device",
    "original": "the original's loop",
}
VALIDATED = 8
"""Number of chips to validate on."""


class Clock:
    """Times between the ends of steps [s]; a step ends when the GPU has finished the previous one."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []

    def start(self) -> None:
        """Begin an epoch."""
        self.epochs.append([])

    def tick(self) -> None:
        """End a step."""
        self.epochs[-1].append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median step of the last epochs, without the first, which is a warm-up."""
        counted = self.epochs[1:] or self.epochs
        steps = [b - a for epoch in counted for a, b in zip(epoch[WARM_UP:], epoch[WARM_UP + 1 :], strict=False)]
        return statistics.median(steps)


class TimedLearner(Learner):
    """A learner whose steps are timed; `batch` replaces all batches by the first one if `resident`."""

    clock: Clock
    resident = False

    def train_epoch(self, batches: Any, epoch: int, after_step: Any) -> float:
        """Train an epoch, and time its steps."""
        self.clock.start()

        def tick() -> None:
            after_step()
            self.clock.tick()

        return super().train_epoch(self._same(batches) if self.resident else batches, epoch, tick)

    @staticmethod
    def _same(batches: BatchLoader) -> Iterator[Batch]:
        first = next(iter(batches))
        yield from (dict(first) for _ in range(len(batches)))


def enlarged(store: Path, chips: int, folder: Path) -> ChipStore:
    """Make a store that contains each chip several times, under different names."""
    index = pd.read_parquet(store / "index.parquet")
    times, shards = -(-chips // len(index)), index["shard"].max() + 1
    copies = [
        index.assign(chip_id=index["chip_id"] + f"-{copy}", shard=index["shard"] + copy * shards)
        for copy in range(times)
    ]
    folder.mkdir(parents=True)
    for copy in range(times):
        for kind, shard in itertools.product(("chips", "labels"), range(shards)):
            source = array_path(store, kind, shard).resolve()
            array_path(folder, kind, copy * shards + shard).symlink_to(source)
    pd.concat(copies).sort_values("chip_id", ignore_index=True).to_parquet(folder / "index.parquet")
    return ChipStore(folder)


def recipe(options: argparse.Namespace) -> TrainingConfig:
    """Return the full preset as far as the hardware and the options allow."""
    params = load(Path(__file__).parents[1] / "config/presets/full.yaml")
    config = TrainingConfig.of(params)
    auto = "auto" if options.device == "cuda" else False
    steps = options.epochs * -(-options.chips // options.batch)
    return replace(
        config,
        model=config.model.model_copy(update={"encoder": options.encoder, "encoder_weights": None}),
        training=config.training.model_copy(update={"batch_size": options.batch, "steps": steps}),
        compute=config.compute.model_copy(
            update={
                "device": options.device,
                "compile": options.compile,
                "device_cache": False if options.no_cache else auto,
                "prediction_batch": VALIDATED,
            }
        ),
    )


def ours(options: argparse.Namespace, store: ChipStore, resident: bool) -> float:
    """Measure the seconds of a step by `train()`."""
    TimedLearner.clock, TimedLearner.resident = Clock(), resident
    items = store.index[["chip_id", "scene"]].reset_index(drop=True).assign(label="human", weight=1.0)[: options.chips]
    split = Split(items[VALIDATED:].assign(fold=1), items[:VALIDATED].assign(scene="held out", fold=0))
    with tempfile.TemporaryDirectory() as folder:
        run.Learner = TimedLearner  # type: ignore[misc]
        start = time.perf_counter()
        run.train(recipe(options), store, split, Path(folder, "model"), Path(folder, "work"), run="benchmark", fold=0)
        print(f"  train() took {time.perf_counter() - start:.1f} s", flush=True)
    _empty()
    return TimedLearner.clock.seconds()


def _empty() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def original(options: argparse.Namespace, raw: Path) -> float:
    """Measure the seconds of a step by the original's loop."""
    import segmentation_models_pytorch as smp
    from baselines import original_input

    torch.manual_seed(options.seed)
    network = smp.Unet(options.encoder, encoder_weights=None, in_channels=3, classes=1).to(options.device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-5, weight_decay=1e-5)
    loss = smp.losses.LovaszLoss(mode="binary", per_image=False)
    loader, clock = original_input.loader(raw, options.batch, options.workers), Clock()
    clock.start()
    while len(clock.epochs[0]) < options.original_steps:
        for images, masks in loader:
            optimizer.zero_grad()
            loss(network(images.to(options.device)), masks.to(options.device)).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if options.device == "cuda":
                torch.cuda.synchronize()
            clock.tick()
            if len(clock.epochs[0]) == options.original_steps:
                break
    _empty()
    return clock.seconds()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small encoder, batches of 2, 8 steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--set", type=Path, default=Path("benchmarks/out"), help="folder for the chips")
    parser.add_argument("--encoder", default="tu-resnest50d")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--chips", type=int, default=96, help="number of chips in the store, by copies of fewer")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--original-steps", type=int, default=20)
    parser.add_argument(
        "--workers", type=int, default=2, help="workers of the original's DataLoader (10 in its own script)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile for this project's step")
    parser.add_argument("--no-cache", action="store_true", help="chips stay in the page cache, not on the GPU")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="ways to time")
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.batch, options.chips, options.original_steps = "tu-mobilenetv3_small_050", 2, 20, 8
    least = VALIDATED + (WARM_UP + 2) * options.batch
    if options.chips < least:
        parser.error(f"--chips {options.chips}: at least {least} are needed for batches of {options.batch}")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((options.set / "inductor").absolute()))

    raw, packed = make(options.set, 32 if options.quick else 64, options.seed)
    folder = Path(tempfile.mkdtemp(dir=options.set))
    store = enlarged(packed, options.chips, folder / "store")
    ways = {
        "train": lambda: ours(options, store, resident=False),
        "no_input": lambda: ours(options, store, resident=True),
        "original": lambda: original(options, raw),
    }
    print(f"U-Net {options.encoder}, batch {options.batch} of 512 px, {options.device}, compiled: {options.compile}")
    best = dict.fromkeys(options.ways, float("inf"))
    for _ in range(options.rounds):
        for name in options.ways:
            best[name] = min(best[name], ways[name]())
            took = f"{1000 * best[name]:8.1f} ms/step {options.batch / best[name]:8.1f} chips/s"
            print(f"{WAYS[name]:36} {took}", flush=True)
    shutil.rmtree(folder)
    figures = {f"seconds_{name}": seconds for name, seconds in best.items()}
    if {"train", "no_input"} <= best.keys():
        figures["input_loss_share"] = 1 - best["no_input"] / best["train"]
        print(f"input_loss_share {figures['input_loss_share']:.3f}")
    if {"train", "original"} <= best.keys():
        figures["ratio_step"] = best["original"] / best["train"]
        print(f"ratio_step {figures['ratio_step']:.2f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
