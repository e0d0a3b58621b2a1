"""Masks of a folder of chips with up-down flip TTA, against the original's loop: speed, and the cost of precision.

    python benchmarks/inference.py --quick
    python benchmarks/inference.py --encoder tu-mobilenetv3_small_050 --model models/bundle --json inference.json
    python benchmarks/inference.py --device cuda --chips 4096 --original-chips 768 --batch 32 --workers 10 --rounds 1

Files are read and masks written on both sides: four bands here, three in the original's way. Speed does not depend on
the weights, so they are random, and int8 is calibrated on chips of the synthetic set. Each way runs in a process of its
own, in turns; the best round counts. On a CPU the original's loop runs as shipped and with the allocator settings that
this project's ways have (docs/benchmarks.md); on a GPU this project's way runs compiled, too. `--model` takes a trained
bundle or model, exports it and compares its masks with torch in fp32 on chips that did not calibrate it:
`mask_disagreement` is the share of differing pixels in the fastest precision.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudcover  # noqa: F401  (first: it makes torchvision importable with a CPU build of torch)

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "-1",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Settings of glibc that keep large buffers instead of returning them to the system after each batch."""


def prepare(encoder: str, store: Path, out: Path, precisions: list[str]) -> None:
    """Make a model folder with random weights and its exports: `torch`, `bf16`, `int8` below `out`."""
    import torch

    from cloudcover.config.sections import InputParams, ModelParams
    from cloudcover.data.store import ChipStore
    from cloudcover.models.build import build_model
    from cloudcover.models.folder import ModelCard, save_model
    from cloudcover.predict.openvino.export import export

    torch.manual_seed(0)
    model = ModelParams(encoder=encoder, decoder_channels=None)  # type: ignore[call-arg]
    card = ModelCard(
        architecture="unet", encoder=encoder, decoder_channels=None, border=model.border,
        bands=["B02", "B03", "B04", "B08"], nodata=0, input=InputParams(), chip_size=512,  # type: ignore[call-arg]
        fingerprint="", run="benchmark", fold=0, seed=0,
    )  # fmt: skip
    save_model(out / "torch", build_model(model, card.bands), card)
    for precision in precisions:
        export(out / "torch", out / precision, precision, ChipStore(store) if precision == "int8" else None, chips=8)  # type: ignore[arg-type]


def number_of(way: str, options: argparse.Namespace) -> int:
    """Return the number of chips that a way predicts."""
    fewer = options.original_chips if way == "original" else None
    return int(fewer or options.chips)


def run(way: str, options: argparse.Namespace, raw: Path, models: Path) -> float:
    """Measure the seconds of a way for its chips, after a warm-up chip and without the start of the process."""
    import torch

    chips = sorted((raw / "train_features").iterdir())
    chips = [chips[i % len(chips)] for i in range(number_of(way, options))]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        # A chip may be asked for more than once: links give each mask a name of its own.
        links = [out / "chips" / f"{i:06d}" for i in range(len(chips))]
        (out / "chips").mkdir()
        for link, chip in zip(links, chips, strict=True):
            link.symlink_to(chip.resolve(), target_is_directory=True)
        if way == "original":
            import segmentation_models_pytorch as smp
            from baselines.original_predict import predict

            network = smp.Unet(options.encoder, encoder_weights=None, in_channels=3, classes=1)
            predict(network, links[:1], out / "warm", 1, 0, options.device)
            start = time.perf_counter()
            predict(network, links, out / "masks", options.batch, options.workers, options.device)
        else:
            from cloudcover.predict.images import predict_images
            from cloudcover.predict.outputs import Outputs
            from cloudcover.predict.predictor import Predictor
            from cloudcover.rasters.find import find_images

            engine, precision, *compiled = way.split("-")
            source = models / ("torch" if engine == "torch" else precision)
            wanted = precision if engine == "torch" else "auto"
            predictor = Predictor([source], "vflip", options.device, wanted, options.batch)
            start = time.perf_counter()
            predictor.prepare(10**9 if compiled else 0)
            predict_images(predictor, find_images(links[:1], predictor.card.bands), Outputs(out / "warm"))
            print(f"{way}: ready after {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
            start = time.perf_counter()
            predict_images(predictor, find_images(links, predictor.card.bands), Outputs(out / "masks"))
        if options.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if len(list((out / "masks").glob("*.tif"))) != len(links):
            raise RuntimeError(f"{way} did not write all masks")
    return seconds


def child(way: str, allocator: bool, arguments: list[str], raw: Path, models: Path) -> float:
    """Run `run` in a separate process."""
    environment = {key: value for key, value in os.environ.items() if key not in ALLOCATOR}
    command = [sys.executable, __file__, *arguments, "--way", way, "--folders", str(raw), str(models)]
    done = subprocess.run(
        command, env=environment | (ALLOCATOR if allocator else {}), check=True, stdout=subprocess.PIPE, text=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def accuracy(model: Path, raw: Path, store: Path, out: Path, precisions: list[str]) -> dict[str, float]:
    """Compute Jaccard on the true masks and the share of pixels that differ from fp32 in torch, by precision."""
    import numpy as np

    from cloudcover.data.chips import read_mask
    from cloudcover.data.store import ChipStore
    from cloudcover.masks.overlap import confusion, jaccard_index
    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.openvino.export import export

    chips = ChipStore(store)
    held: list[str] = []
    for precision in precisions:
        held = export(model, out / precision, precision, chips)[0].checked_chips  # type: ignore[arg-type]
    truth = np.stack([read_mask(raw.parent / "truth/masks" / f"{c}.tif", "label")[0] for c in held])
    ways = {"fp32": load_bundle(model, "cpu", "fp32", 4), "torch_bf16": load_bundle(model, "cpu", "bf16", 4)}
    ways |= {precision: load_bundle(out / precision, "cpu", batch=4) for precision in precisions}
    figures, exact = {}, None
    for name, predictor in ways.items():
        masks = predictor.probabilities(chips.chips(held), chips.percentiles(held)) > predictor.threshold
        exact = masks if exact is None else exact
        figures[f"jaccard_{name}"] = float(jaccard_index(confusion(masks, truth).sum(axis=0)))
        figures[f"disagreement_{name}"] = float((masks != exact).mean())
        print(f"{name:12} Jaccard {figures[f'jaccard_{name}']:.5f}, differing pixels {(masks != exact).mean():.5f}")
    return figures | {"mask_disagreement": figures[f"disagreement_{precisions[-1]}"]}


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 chips, one round, a small encoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--set", type=Path, default=Path("benchmarks/out"), help="folder for the chips")
    parser.add_argument("--encoder", default="tu-resnest50d")
    parser.add_argument("--chips", type=int, default=16)
    parser.add_argument("--original-chips", type=int, help="number of chips for the original's loop, if fewer")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2, help="workers of the original's DataLoader")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", type=Path, help="a trained bundle or model folder, for the cost of precision")
    parser.add_argument("--ways", nargs="+", help="this project's ways to time, as named in the table; default: all")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folders", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.chips, options.rounds = "tu-mobilenetv3_small_050", 4, 1
    if options.way:
        print(json.dumps(run(options.way, options, *options.folders)))
        return

    from chips512 import make

    from cloudcover.runtime.files import write_json

    raw, store = make(options.set, 32 if options.quick else 64, options.seed)
    cpu = options.device == "cpu"
    precisions = ["bf16", "int8"] if cpu else []
    ways = ["torch-bf16", *([] if cpu else ["torch-bf16-compiled"]), *(f"openvino-{name}" for name in precisions)]
    if options.ways and not set(options.ways) <= set(ways):
        parser.error(f"--ways: choose from {', '.join(ways)}")
    ways = options.ways or ways
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        prepare(options.encoder, store, models, precisions)
        plan = [("original", False), *([("original", True)] if cpu else []), *((way, cpu) for way in ways)]
        best = dict.fromkeys(plan, float("inf"))
        for _ in range(options.rounds):
            for way, allocator in plan:
                seconds = child(way, allocator, sys.argv[1:], raw, models) / number_of(way, options)
                best[way, allocator] = min(best[way, allocator], seconds)
                print(f"{way}{' + allocator settings' * allocator}: {seconds:.4f} s/chip", flush=True)
        shipped, settings = best["original", False], best.get(("original", True), float("nan"))
        print(f"U-Net {options.encoder}, {options.chips} chips of 512 px, {options.device}, vflip")
        print(f"{'':28} {'s/chip':>8} {'against the original':>21} {'same allocator settings':>24}")
        for (way, allocator), seconds in best.items():
            name = f"{way}{' + allocator settings' if allocator else ''}"
            figures[f"seconds_{way}{'_allocator' if allocator else ''}"] = seconds
            print(f"{name:36} {seconds:8.4f} {shipped / seconds:9.2f} {settings / seconds:9.2f}")
            if way != "original":
                figures[f"ratio_{way}"], figures[f"ratio_{way}_same_allocator"] = shipped / seconds, settings / seconds
        figures["ratio_inference"] = max(shipped / seconds for (way, _), seconds in best.items() if way != "original")
        if not cpu:
            figures = {key: value for key, value in figures.items() if not key.endswith("_same_allocator")}
        if options.model:
            figures |= accuracy(options.model, raw, store, models / "trained", precisions)
    if options.json:
        write_json(options.json, figures)


if __name__ == "__main__":
    main()
