"""Compare cloud masks of the packaged model, or any other, with those of other projects on all real chips at hand.

    python -m venv .venv/ukis && .venv/ukis/bin/pip install "ukis-csmask[cpu]==1.0.0" rasterio
    python benchmarks/peers.py --shared ../shared
    python benchmarks/peers.py --shared ../shared --model demo=models/bundle --held-out work/box/held-out --chips

Three groups of chips: the five labelled ones of `real-chips`, those of `real-labels` whose label at most one of four
reviewers rejected, and `landsat-biome` (top-of-atmosphere reflectance, 30 m). Ways:

- `B02 > 700`: a threshold [DN];
- `ukis-csmask`: its four-band network, for Level-2A or (Landsat) Level-1C; left out without its environment;
- a bundle or model folder per `--model NAME=FOLDER`;
- `held out`: a folder of model folders, `<place>/`, each trained without that place's chips (`box.py`).

Figures: Jaccard, the sum of intersections over the sum of unions, of all chips of a group and of its partly cloudy
ones; and false cloud, the share of cloud in the chips whose label has none.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from real_chips import ROOT, THRESHOLD_DN, Masks, Real, by_model, by_ukis

from cloudcover.masks.overlap import confusion, jaccard_index
from cloudcover.runtime.files import write_json

MOST_VOTES = 1
"""A label that more of the four reviewers rejected is not believed."""
SAME_PLACE = {"lon32.5_lat-2.7": "Chifunfu"}
"""Locations that are named twice: both lie on the same shore of Lake Victoria."""

Way = Callable[["Group"], Masks]


@dataclass(frozen=True)
class Group:
    """Chips that are judged together.

    Attributes:
        name: Name of their folder.
        real: The chips with labels.
        level: `l2a` for surface reflectance, `l1c` for top-of-atmosphere reflectance.
    """

    name: str
    real: Real
    level: str

    def place(self, chip: str) -> str:
        """Return the name of a chip's place, which no model that judges the chip may have seen."""
        location = self.real.location[chip]
        return SAME_PLACE.get(location, location)


def believable(folder: Path) -> list[str]:
    """List the chips of `real-labels` whose label at most `MOST_VOTES` reviewers rejected."""
    votes = pd.read_csv(folder / "label_votes.csv")
    chips: list[str] = votes.loc[votes["votes"] <= MOST_VOTES, "chip_id"].tolist()
    return chips


def groups(shared: Path) -> list[Group]:
    """Read the three groups."""
    labels = shared / "real-labels"
    return [
        Group("real-chips", Real(shared / "real-chips"), "l2a"),
        Group("real-labels", Real(labels, believable(labels)), "l2a"),
        Group("landsat-biome", Real(shared / "landsat-biome"), "l1c"),
    ]


def threshold(group: Group) -> Masks:
    """Mask chips by `B02 > THRESHOLD_DN`."""
    return {name: (chip[0] > THRESHOLD_DN).astype(np.uint8) for name, chip in group.real.chips.items()}


def peers(ukis_python: Path) -> dict[str, Way]:
    """Return the methods of others; ukis-csmask only if its environment exists."""
    ways: dict[str, Way] = {f"B02 > {THRESHOLD_DN}": threshold}
    if ukis_python.exists():
        ways["ukis-csmask"] = lambda group: by_ukis(group.real, ukis_python, group.level)
    return ways


def bundle(folder: Path, device: str) -> Way:
    """Return a way that masks by a bundle or model folder."""
    from cloudcover.predict.bundle import load_bundle

    predictor = load_bundle(folder, device)
    return lambda group: by_model(predictor, group.real.chips)


def held_out(folder: Path, device: str) -> Way:
    """Return a way that masks each chip by the model that was trained without its place."""
    from cloudcover.predict.bundle import load_bundle

    def masks(group: Group) -> Masks:
        made: Masks = {}
        for place in sorted({group.place(chip) for chip in group.real.chips}):
            chips = {name: chip for name, chip in group.real.chips.items() if group.place(name) == place}
            made |= by_model(load_bundle(folder / place, device), chips)
        return made

    return masks


def judge(ways: dict[str, Way], sets: list[Group]) -> dict[str, dict[str, dict[str, NDArray[np.int64]]]]:
    """Count the pixels of each chip (`counts`), by way and group."""
    return {way: {group.name: counts(mask(group), group.real.labels) for group in sets} for way, mask in ways.items()}


def counts(masks: Masks, labels: Masks) -> dict[str, NDArray[np.int64]]:
    """Count found cloud, false cloud, missed cloud and found clear pixels by chip."""
    return {name: confusion((masks[name] == 1)[None], label[None])[0] for name, label in labels.items()}


def figures(by_chip: dict[str, NDArray[np.int64]]) -> dict[str, float]:
    """Compute the Jaccard of all and of partly cloudy chips (`jaccard`, `partly`), and false cloud on clear chips."""
    every = list(by_chip.values())
    partly = [c for c in every if c[0] + c[2] and c[1] + c[3]]
    clear = np.sum([c for c in every if not c[0] + c[2]], axis=0)
    return {
        "jaccard": float(jaccard_index(np.sum(every, axis=0))),
        "partly": float(jaccard_index(np.sum(partly, axis=0))),
        "false_cloud": float(clear[1] / (clear[1] + clear[3])),
    }


def per_chip(by_chip: dict[str, NDArray[np.int64]]) -> dict[str, float]:
    """Compute the Jaccard of each chip; if its label has no cloud, the share of false cloud, as a negative number."""
    return {
        name: float(hit / (hit + false + missed)) if hit + missed else -float(false / (false + clear))
        for name, (hit, false, missed, clear) in by_chip.items()
    }


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Format the figures, group by group and way by way, as a Markdown table."""
    lines = ["| group | way | Jaccard | Jaccard, partly cloudy | false cloud on clear chips |", "|---|---|---|---|---|"]
    for name in next(iter(rows.values())):
        for way, by_group in rows.items():
            values = [f"{value:.3f}" for value in by_group[name].values()]
            lines.append("| " + " | ".join([name, way, *values]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder of the three groups")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER", help="a bundle or model folder")
    parser.add_argument("--held-out", type=Path, help="folder of models that were trained without a place each")
    parser.add_argument("--chips", action="store_true", help="print figures of each chip as well")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--ukis-python", type=Path, default=ROOT / ".venv/ukis/bin/python")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    ways = peers(arguments.ukis_python)
    for name, _, folder in (model.partition("=") for model in arguments.model):
        ways[name] = bundle(Path(folder), arguments.device)
    if arguments.held_out:
        ways["held out"] = held_out(arguments.held_out, arguments.device)
    found = judge(ways, groups(arguments.shared))
    rows = {way: {name: figures(by_chip) for name, by_chip in parts.items()} for way, parts in found.items()}
    print(table(rows))
    if arguments.chips:
        columns = {
            way: {(group, chip): value for group, by_chip in parts.items() for chip, value in per_chip(by_chip).items()}
            for way, parts in found.items()
        }
        print("\nJaccard by chip; where a label has no cloud, minus the share of false cloud")
        print(pd.DataFrame(columns).round(3).to_string())
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
