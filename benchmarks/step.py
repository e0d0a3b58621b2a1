"""Chips per second of training, against the original's loop, and how much of a step is lost to waiting for input.

    python benchmarks/step.py --quick
    python benchmarks/step.py --device cuda --batch 32 --steps 60 --json step.json

U-Net with `--encoder`, chips of 512 pixels, the project's own training module, batches and loss in Lightning's trainer;
the original's loop is fp32 with a `DataLoader`, Adam, Lovász by sorting and gradient clipping. `input_loss_share`
compares training from the store with training on one batch that is already on the device. The ways take turns; the
median step after the warm-up of each round is taken, and the best round of each counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudcover  # noqa: F401  (first: it makes torchvision importable beside a CPU build of torch)

# isort: split
import pandas as pd
import pytorch_lightning as pl
import segmentation_models_pytorch as smp
import torch
from baselines import original_input
from chips512 import make

from cloudcover.config.params import Params
from cloudcover.data.store import ChipStore
from cloudcover.models.build import build_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.device import precision
from cloudcover.runtime.files import write_json
from cloudcover.train.data import BatchLoader
from cloudcover.train.module import SegmentationModule
from cloudcover.train.run import PRECISIONS

WARM_UP = 3
"""Steps of each round that are not counted."""


class Clock(pl.Callback):
    """Time of every step [s]; a GPU's work is waited for, so that a step ends when it is done."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """Takes the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Median step after the warm-up."""
        steps = [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]
        return statistics.median(steps[WARM_UP - 1 :])


class Resident:
    """One batch again and again, moved to the device once."""

    def __init__(self, batch: dict[str, Any], steps: int, device: str) -> None:
        self.batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(self.batch) for _ in range(self.steps))


def ours(options: argparse.Namespace, store: ChipStore, resident: bool) -> float:
    """Seconds of a step by the project's module."""
    torch.manual_seed(options.seed)
    params = Params()
    model = params.model.model_copy(update={"encoder": options.encoder, "decoder_channels": None})
    training = params.training.model_copy(update={"batch_size": options.batch, "loss": "lovasz"})
    ids = (store.index["chip_id"].tolist() * (options.batch * options.steps // len(store) + 1))[
        : options.batch * options.steps
    ]
    items = pd.DataFrame({"chip_id": ids, "label": "human", "weight": 1.0})
    cuda = options.device == "cuda"
    batches: Any = BatchLoader(store, items, options.batch, options.seed, pin=cuda)
    if resident:
        batches = Resident(next(iter(batches)), options.steps, options.device)
    network = build_model(model, 4)
    if options.compile:
        network.compile()
    scaler = Normalize(params.input, params.data, reuse=not cuda)
    module = SegmentationModule(network, scaler, training, params.augmentation, options.steps, options.seed)
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="gpu" if cuda else "cpu", devices=1, max_epochs=1, logger=False, callbacks=[clock],
        precision=PRECISIONS[precision("auto", options.device)], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, batches)
    return clock.seconds()


def original(options: argparse.Namespace, raw: Path) -> float:
    """Seconds of a step by the original's loop."""
    torch.manual_seed(options.seed)
    network = smp.Unet(options.encoder, encoder_weights=None, in_channels=3, classes=1).to(options.device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-5, weight_decay=1e-5)
    loss = smp.losses.LovaszLoss(mode="binary", per_image=False)
    loader, clock = original_input.loader(raw, options.batch, options.workers), Clock()
    while len(clock.ends) < options.steps:
        for images, masks in loader:
            optimizer.zero_grad()
            loss(network(images.to(options.device)), masks.to(options.device)).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            clock.on_train_batch_end()
            if len(clock.ends) == options.steps:
                break
    return clock.seconds()


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small encoder, batches of 2, 7 steps, one round")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--set", type=Path, default=Path("benchmarks/out"), help="folder for the chips")
    parser.add_argument("--encoder", default="tu-resnest50d")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of the original's DataLoader (its own script took 10)")
    parser.add_argument("--compile", action="store_true", help="torch.compile for this project's step")
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.batch, options.steps, options.rounds = "tu-mobilenetv3_small_050", 2, 7, 1

    raw, packed = make(options.set, 32 if options.quick else 64, options.seed)
    store = ChipStore(packed)
    ways = {
        "this project": lambda: ours(options, store, resident=False),
        "this project, no input": lambda: ours(options, store, resident=True),
        "original": lambda: original(options, raw),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):
        for name, way in ways.items():
            best[name] = min(best[name], way())
    print(f"U-Net {options.encoder}, batch {options.batch} of 512 px, {options.device}")
    for name, seconds in best.items():
        print(f"{name:24} {1000 * seconds:8.0f} ms/step {options.batch / seconds:8.1f} chips/s")
    figures = {
        "ratio_step": best["original"] / best["this project"],
        "input_loss_share": 1 - best["this project, no input"] / best["this project"],
        **{f"chips_per_s_{name.replace(', ', '_').replace(' ', '_')}": options.batch / s for name, s in best.items()},
    }
    print(f"ratio_step {figures['ratio_step']:.2f}, input_loss_share {figures['input_loss_share']:.3f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
