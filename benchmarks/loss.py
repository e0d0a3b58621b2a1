"""The Lovász hinge from a histogram against the one from a sort: time, value and gradient.

    python benchmarks/loss.py --quick
    python benchmarks/loss.py --device cuda --chips 32 --json loss.json

Forward and backward on 8 chips of 512 x 512 pixels (`--chips`), with torch's deterministic operations as in training:
blobs of cloud with the logits of a half-trained model, with a weight for each chip as in training, and with logits
near 0 as at its start ("flat"). The sorts are the project's own reference and the one of segmentation-models-pytorch,
both in float32; `ratio_lovasz` is against the faster of the two. Errors are relative to a sort in float64. Times are
the best of several rounds, in which the ways take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cloudcover.losses.lovasz import lovasz_hinge, lovasz_hinge_sorted
from cloudcover.runtime.files import write_json

SIZE = 512
UNKNOWN_SHARE = 0.02


def make_batch(seed: int, device: str, chips: int) -> tuple[Tensor, Tensor]:
    """Generate logits N x 1 x H x W, and targets N x H x W of {0, 1, 255}."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.nn.functional.avg_pool2d(torch.randn(chips, 1, SIZE, SIZE, generator=generator), 65, 1, 32)
    cloud = field > field.quantile(0.38)  # the challenge's mean coverage is 0.62
    noise = 2 * torch.randn(chips, 1, SIZE, SIZE, generator=generator)
    logits = 3 * (cloud.float() * 2 - 1) * torch.rand(chips, 1, SIZE, SIZE, generator=generator) + noise
    target = cloud[:, 0].to(torch.uint8)
    target[torch.rand(chips, SIZE, SIZE, generator=generator) < UNKNOWN_SHARE] = 255
    return logits.to(device), target.to(device)


def forward_backward(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Return the value and the gradient with respect to the logits."""
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad  # `item` waits for a GPU


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    from segmentation_models_pytorch.losses import LovaszLoss

    torch.use_deterministic_algorithms(True, warn_only=True)
    logits, target = make_batch(options.seed, options.device, options.chips)
    flat = 0.01 * torch.randn_like(logits) + 0.001 * logits
    ones = torch.ones(len(logits), device=logits.device)
    ways: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
        "histogram": (lovasz_hinge, logits),
        "weighted": (lambda logits, target: lovasz_hinge(logits, target, ones), logits),
        "flat": (lovasz_hinge, flat),
        "sort": (lovasz_hinge_sorted, logits),
        "sort_smp": (LovaszLoss(mode="binary", per_image=False, ignore_index=255), logits),
    }
    exact = {id(given): forward_backward(lovasz_hinge_sorted, given.double(), target) for given in (logits, flat)}

    seconds = dict.fromkeys(ways, float("inf"))
    figures: dict[str, float] = {}
    for _ in range(3 if options.quick else 20):
        for name, (loss, given) in ways.items():
            start = time.perf_counter()
            value, gradient = forward_backward(loss, given, target)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            expected, expected_gradient = exact[id(given)]
            figures[f"loss_error_{name}"] = abs(value - expected) / expected
            error = (gradient - expected_gradient).norm() / expected_gradient.norm()
            figures[f"gradient_error_{name}"] = error.item()

    print(f"{options.chips} x {SIZE} x {SIZE}, {options.device}, {torch.get_num_threads()} threads")
    print(f"{'':10} {'ms':>8} {'loss error':>11} {'gradient error':>15}")
    for name in ways:
        errors = figures[f"loss_error_{name}"], figures[f"gradient_error_{name}"]
        print(f"{name:10} {1000 * seconds[name]:8.1f} {errors[0]:11.1e} {errors[1]:15.1e}")
    figures |= {f"seconds_{name}": value for name, value in seconds.items()}
    figures["ratio_lovasz"] = min(seconds["sort"], seconds["sort_smp"]) / seconds["histogram"]
    figures["gradient_error"] = figures["gradient_error_histogram"]
    print(f"ratio_lovasz {figures['ratio_lovasz']:.1f}")
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
