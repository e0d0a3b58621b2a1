"""Make the packaged model: learn from the synthetic set, tune on real chips, and judge it on places held out.

    python benchmarks/box.py --shared ../shared --work work/box
    python benchmarks/peers.py --held-out work/box/held-out --model packaged=src/cloudcover/assets/box

The network learns from the synthetic set of `config/presets/box.yaml` by the project's own training, and is then tuned
on tiles of the real chips (`peers.py` says which) and synthetic chips, half and half. Nothing is chosen on real chips:
the steps and the rate of the tuning are fixed. For the figures, it is tuned once more for each place, without it.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from baselines.synthetic_models import Trainer
from peers import SAME_PLACE, believable
from real_chips import ROOT

from cloudcover.config.params import Params, load, validate

TUNING_STEPS = 120


def params_of(preset: Path, seed: int, device: str) -> Params:
    """The preset, with a seed and a device."""
    values = load(preset).model_dump(mode="json")
    values["compute"]["device"] = device
    return validate(values | {"seed": seed})


def main() -> None:
    """Train all models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of the real chips")
    parser.add_argument("--work", type=Path, default=ROOT / "work/box", help="folder of chips and models")
    parser.add_argument("--preset", type=Path, default=ROOT / "config/presets/box.yaml")
    parser.add_argument("--steps", type=int, default=TUNING_STEPS, help="steps of the tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make chips")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-held-out", action="store_true", help="leave out the models for the figures")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shared = arguments.shared
    real = {
        shared / "real-chips": None,
        shared / "real-labels": believable(shared / "real-labels"),
        shared / "landsat-biome": None,
    }
    trainer = Trainer(
        params_of(arguments.preset, arguments.seed, arguments.device),
        real,
        arguments.work,
        workers=arguments.workers,
        steps=arguments.steps,
        place=lambda location: SAME_PLACE.get(location, location),
    )
    print(trainer.with_real(None))
    if not arguments.no_held_out:
        for place in sorted(trainer.real["place"].unique()):
            print(trainer.with_real(place))


if __name__ == "__main__":
    main()
