"""Find the part of a training that fails when compiled: one part after another is changed, each in its own process.

    python benchmarks/compiled.py --quick
    python benchmarks/compiled.py --device cuda --batch 32 --limit 60 --variants train eager_order plain

A process compares the gradients of the eager and the compiled network on one batch and then takes a few steps. It ends
after `--limit` seconds, so a variant that crashes or hangs costs no other, and the table is printed row by row. The
first failure of a GPU is reported by a later call; `blocking` repeats `train` with kernels that run one by one, so that
its log (`--out`) names the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

# isort: split
import torch
from torch import Tensor, nn

from cloudcover.config.params import load
from cloudcover.losses.build import build_loss
from cloudcover.models.border import Bordered
from cloudcover.models.build import build_model
from cloudcover.models.upsample import repeat_pixels
from cloudcover.runtime.files import write_json
from cloudcover.train.run import _deterministic

TOLERANCE = {"cpu": 1e-3, "cuda": 0.1}
"""Largest accepted difference of gradients (fp32 and bf16), as a share of their norm."""


class Variant(NamedTuple):
    """What is compiled; the defaults are what `train()` does.

    Attributes:
        border: Mirrored pixels around a chip.
        deterministic: Whether operations must be deterministic.
        repeat: Whether the decoder upsamples by `repeat_pixels`.
        channels_last: Whether weights and inputs are in channels_last.
        outside: Whether padding and cropping stay outside the compiled part.
        blocking: Whether a GPU runs kernels one by one.
        eager: Whether the backend `aot_eager` runs torch's own kernels in the compiled order, without generated ones.
    """

    border: int = 16
    deterministic: bool = True
    repeat: bool = True
    channels_last: bool = True
    outside: bool = False
    blocking: bool = False
    eager: bool = False


VARIANTS = {
    "train": Variant(),
    "no_border": Variant(border=0),
    "border_outside": Variant(outside=True),
    "not_deterministic": Variant(deterministic=False),
    "library_upsampling": Variant(repeat=False),
    "contiguous": Variant(channels_last=False),
    "plain": Variant(border=0, deterministic=False, repeat=False),
    "eager_order": Variant(eager=True),
    "blocking": Variant(blocking=True),
}


def gradients(run: nn.Module, network: nn.Module, inputs: Tensor, target: Tensor) -> list[Tensor]:
    """Compute the gradients of all weights, with the loss and the precision of a training."""
    network.zero_grad()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=inputs.is_cuda):
        logits = run(inputs)
    build_loss("bce_lovasz", 0.0)(logits.float(), target, torch.ones(len(inputs), device=inputs.device)).backward()
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


def child(variant: Variant, options: argparse.Namespace) -> dict[str, float]:
    """Compile one variant, compare its gradients, and take steps."""
    torch.manual_seed(0)
    params = load(Path(__file__).parents[1] / "config/presets/full.yaml")
    model = params.model.model_copy(
        update={"encoder": options.encoder, "encoder_weights": None, "border": variant.border}
    )
    network = build_model(model, params.data.bands).to(options.device).train()
    inputs = torch.randn(options.batch, 4, options.size, options.size, device=options.device)
    target = (inputs[:, 0] > 0.5).to(torch.uint8)
    if variant.channels_last:
        network, inputs = (part.to(memory_format=torch.channels_last) for part in (network, inputs))
    with _deterministic(options.device):
        torch.use_deterministic_algorithms(variant.deterministic, warn_only=options.device == "cuda")
        eager = gradients(network, network, inputs, target)
        if variant.repeat:
            repeat_pixels(network)
        backend = "aot_eager" if variant.eager else "inductor"
        inner = torch.compile(network.network if variant.outside else network, dynamic=False, backend=backend)
        run = Bordered(inner, variant.border) if variant.outside else inner
        start = time.perf_counter()
        compiled = gradients(run, network, inputs, target)
        taken = time.perf_counter() - start
        error = sum((a - b).square().sum().item() for a, b in zip(eager, compiled, strict=True))
        norm = sum(a.square().sum().item() for a in eager)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        start = time.perf_counter()
        for _ in range(options.steps):
            gradients(run, network, inputs, target)
            optimizer.step()
        finite = all(bool(weight.isfinite().all()) for weight in network.parameters())  # waits for a GPU
    return {
        "compile_s": taken,
        "step_ms": 1000 * (time.perf_counter() - start) / options.steps,
        "difference": (error / norm) ** 0.5 if finite else float("nan"),
    }


def measure(name: str, options: argparse.Namespace) -> dict[str, float | str]:
    """Run one variant in a process of its own; `outcome` says how it ended."""
    log = options.out / f"{name}.log"
    command = [sys.executable, *sys.argv, "--variant", name]
    environment = os.environ | ({"CUDA_LAUNCH_BLOCKING": "1"} if VARIANTS[name].blocking else {})
    try:
        with log.open("w", encoding="utf-8") as errors:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=options.limit, env=environment
            )
    except subprocess.TimeoutExpired:
        return {"outcome": f"not done after {options.limit} s"}
    if done.returncode:
        lines = log.read_text(encoding="utf-8").strip().splitlines() or [""]
        return {"outcome": f"exit status {done.returncode}: {lines[-1][:100]}"}
    figures: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    right = float(figures["difference"]) <= TOLERANCE[options.device]
    return figures | {"outcome": "right" if right else "other gradients"}


def main() -> None:
    """Run the variants and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small encoder, two chips of 64 pixels, one step")
    parser.add_argument("--device", choices=sorted(TOLERANCE), default="cpu")
    parser.add_argument("--encoder", default="tu-resnest50d")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=512, help="height and width of a chip [pixels]")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--limit", type=float, default=600, help="for each variant [s]")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/compiled"), help="folder for the logs")
    parser.add_argument("--json", type=Path, help="write the figures to this file after each variant")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.batch, options.size, options.steps = "tu-mobilenetv3_small_050", 2, 64, 1
    if options.variant:
        print(json.dumps(child(VARIANTS[options.variant], options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    print(f"U-Net {options.encoder}, batch {options.batch} of {options.size} px, {options.device}")
    print(f"{'variant':20} {'compiling':>10} {'ms/step':>9} {'difference':>11}  outcome", flush=True)
    for name in options.variants:
        found = results[name] = measure(name, options)
        cells = [f"{found[key]:{form}}" if key in found else "" for key, form in
                 (("compile_s", ".1f"), ("step_ms", ".1f"), ("difference", ".2g"))]  # fmt: skip
        print(f"{name:20} {cells[0]:>10} {cells[1]:>9} {cells[2]:>11}  {found['outcome']}", flush=True)
        if options.json:
            write_json(options.json, results)


if __name__ == "__main__":
    main()
