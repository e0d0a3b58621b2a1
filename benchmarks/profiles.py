"""Profile of a training step and of a prediction: a table of kernels and a trace.

    python benchmarks/profiles.py --quick
    python benchmarks/profiles.py --device cuda --batch 32 --out profiles-gpu
    python benchmarks/profiles.py --device cuda --batch 32 --compile --out profiles-gpu

Writes `step.txt` and `predict.txt`, tables sorted by the time on the device, and `step.json.gz` and `predict.json.gz`,
traces for https://ui.perfetto.dev (with `-compiled` in their names if compiled). Steps are those of `train()` with the
recipe of config/presets/full.yaml on one random batch; predictions have up-down flip TTA.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

# isort: split
import torch
from torch.profiler import ProfilerActivity, profile

from cloudcover.augment import tta
from cloudcover.config.params import load
from cloudcover.models.build import build_model
from cloudcover.models.normalize import Normalize
from cloudcover.runtime.device import precision
from cloudcover.train.data import Batch
from cloudcover.train.ema import EMA
from cloudcover.train.learner import Learner
from cloudcover.train.run import _deterministic

SIZE = 512


def random_batch(chips: int, size: int, device: str) -> Batch:
    """Generate a batch of blobs of cloud."""
    generator = torch.Generator().manual_seed(0)
    dn = torch.randint(500, 9_000, (chips, 4, size, size), generator=generator, dtype=torch.int32).to(torch.int16)
    target = (dn[:, 0] > 4_000).to(torch.uint8)
    batch = {
        "dn": dn.to(device).view(torch.uint16),
        "target": target.to(device),
        "weight": torch.ones(chips).to(device),
    }
    percentiles = torch.tensor([600.0, 8_900.0]).expand(chips, 4, 2).to(device)
    return {**batch, "percentiles": percentiles, "chip_id": ["random"] * chips}


def measure(work: Callable[[int], None], options: argparse.Namespace, name: str) -> None:
    """Profile a few rounds of some work after two warm-up rounds."""
    cuda = options.device == "cuda"
    work(2)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities, record_shapes=not cuda) as profiler:
        work(options.rounds)
        if cuda:
            torch.cuda.synchronize()
    name += "-compiled" if options.compile else ""
    order = "self_device_time_total" if cuda else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=70)
    (options.out / f"{name}.txt").write_text(table + "\n", encoding="utf-8")
    profiler.export_chrome_trace(str(options.out / f"{name}.json.gz"))
    print(f"{name}, {options.rounds} rounds of {options.batch} chips\n{table}", flush=True)


def main() -> None:
    """Run the profiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small encoder, one chip of 256 pixels, one round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="tu-resnest50d")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/profiles"))
    options = parser.parse_args()
    size = SIZE
    if options.quick:
        options.encoder, options.batch, options.rounds, size = "tu-mobilenetv3_small_050", 2, 1, 256
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", "benchmarks/out/inductor")

    params = load(Path(__file__).parents[1] / "config/presets/full.yaml")
    model = params.model.model_copy(update={"encoder": options.encoder, "encoder_weights": None})
    network = build_model(model, params.data.bands).to(options.device)
    normalize = Normalize(params.input, params.data, reuse=options.device == "cpu")
    wanted = precision("auto", options.device)
    training = params.training.model_copy(update={"batch_size": options.batch})
    learner = Learner(
        network, normalize, training, params.augmentation, 1_000, 0, precision=wanted, compiled=options.compile
    )
    average = EMA(network, 0.98)
    batch = random_batch(options.batch, size, options.device)
    with _deterministic(options.device):
        measure(
            lambda rounds: learner.train_epoch((dict(batch) for _ in range(rounds)), 0, average.update) and None,
            options,
            "step",
        )
    network.eval()
    run = torch.compile(network, dynamic=False) if options.compile else network

    @torch.inference_mode()
    def predict(rounds: int) -> None:
        for _ in range(rounds):
            inputs = tta.views(normalize(batch["dn"], batch["percentiles"]), "vflip")
            with torch.autocast(options.device, torch.bfloat16, enabled=wanted == "bf16"):
                logits = run(inputs.contiguous(memory_format=torch.channels_last))
            tta.merge(logits.float().sigmoid_(), "vflip", options.batch)

    measure(predict, options, "predict")


if __name__ == "__main__":
    main()
