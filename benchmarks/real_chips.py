"""How well models of synthetic chips do on real ones, beside a threshold and another project's network.

    python -m venv .venv/ukis && .venv/ukis/bin/pip install "ukis-csmask[cpu]==1.0.0" rasterio
    python benchmarks/transfer.py ../shared/real-chips --model models/bundle

The real chips are in the challenge's layout, with labels. Ways: blue (B02) above 700 DN; ukis-csmask's four-band
network (`baselines/ukis_masks.py`, in an environment of its own; left out without it); a model of this project, if one
is given; and two that this program trains by a preset: on synthetic chips without label errors alone, and with the real
chips of all other locations added, cut into chips of the preset's size, one such model for each location.

Global Jaccard is the sum of intersections over the sum of unions. No location is in both training and test.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.bundle import load_bundle
from cloudcover.chips import read_chip
from cloudcover.evaluate.counts import confusion
from cloudcover.files import derive_seed, write_json
from cloudcover.params import Params, load
from cloudcover.predict.masks import limits_of, mask_of
from cloudcover.predict.predictor import Predictor
from cloudcover.sources import local
from cloudcover.sources.layout import read_metadata, write_manifest
from cloudcover.sources.synthetic import generate
from cloudcover.store import Store
from cloudcover.store.pack import pack
from cloudcover.train.run import Recipe, train
from cloudcover.train.select import Selection

ROOT = Path(__file__).resolve().parents[1]
BANDS = ["B02", "B03", "B04", "B08"]
Masks = dict[str, NDArray[np.uint8]]


class Real:
    """The labelled real chips: images, labels and locations by id."""

    def __init__(self, folder: Path) -> None:
        table = read_metadata(folder)
        self.folder = folder
        self.location: dict[str, str] = {}
        self.chips: Masks = {}
        self.labels: Masks = {}
        for row in table[table["split"] == "train"].itertuples():
            label = folder / "train_labels" / f"{row.chip_id}.tif"
            chip = read_chip(folder / "train_features" / row.chip_id, label, BANDS, (512, 512))
            assert chip.label is not None
            self.location[row.chip_id] = row.location
            self.chips[row.chip_id], self.labels[row.chip_id] = chip.bands, chip.label


def by_model(predictor: Predictor, chips: Masks) -> Masks:
    """Masks of a predictor."""
    masks = {}
    for name, chip in chips.items():
        probabilities = predictor.probabilities(chip[None], limits_of(chip[None], 0))
        masks[name] = mask_of(probabilities, chip[None], predictor.threshold, 0)[0]
    return masks


def by_ukis(real: Real, python: Path, work: Path) -> Masks:
    """Masks of ukis-csmask, in its own environment."""
    np.savez(work / "chips.npz", **real.chips)
    program = ROOT / "benchmarks" / "baselines" / "ukis_masks.py"
    subprocess.run([python, program, work / "chips.npz", work / "masks.npz"], check=True)
    return dict(np.load(work / "masks.npz"))


class Trainer:
    """Trains models on a set of synthetic chips and tiles of the real ones."""

    def __init__(self, params: Params, real: Real, work: Path) -> None:
        self.work = work
        self.recipe = Recipe(**{name: getattr(params, name) for name in Recipe.__dataclass_fields__})
        raw = work / "raw"
        generate(
            params.synthetic.model_copy(update={"label_errors": 0.0}), params.data, params.seed, raw, work / "truth"
        )
        synthetic = read_metadata(raw)
        source = params.data.model_copy(update={"source": "local", "path": str(real.folder), "tile": True})
        tiles_raw = work / "tiles"
        local.fetch(source, tiles_raw)
        for path in tiles_raw.glob("train_*/**/*.tif"):
            local.place(path, raw / path.relative_to(tiles_raw), "hardlink")
        tables = [pd.read_csv(folder / "train_metadata.csv", dtype=str) for folder in (raw, tiles_raw)]
        pd.concat(tables).to_csv(raw / "train_metadata.csv", index=False)
        write_manifest(raw, "synthetic and real")
        pack(raw, work / "store", work / "quarantine.csv", params.data.model_copy(update={"max_quarantined": 1.0}))
        self.store = Store(work / "store")
        known = self.store.index[self.store.index["labelled"]]
        self.synthetic = known[known["chip_id"].isin(synthetic["chip_id"])]
        self.real = known[~known["chip_id"].isin(synthetic["chip_id"])]

    def model(self, name: str, without: str | None) -> Predictor:
        """A model of the synthetic chips of three of four locations, the others telling the best epoch.

        Args:
            name: of the run.
            without: adds the real tiles of all locations but this; None: adds none.
        """
        held = sorted(self.synthetic["location"].unique())[::4]
        training = self.synthetic[~self.synthetic["location"].isin(held)]
        if without is not None:
            training = pd.concat([training, self.real[self.real["location"] != without]])
        validation = self.synthetic[self.synthetic["location"].isin(held)]
        columns = ["chip_id", "label", "weight", "scene"]
        parts = [part.assign(label="human", weight=1.0)[columns] for part in (training, validation)]
        selection = Selection(*(part.reset_index(drop=True) for part in parts))
        train(self.recipe, self.store, selection, self.work / name, self.work / "state", run=name, fold=0)
        return Predictor([self.work / name], "vflip")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path, help="folder of real chips in the challenge's layout")
    parser.add_argument("--model", type=Path, help="a bundle that was trained without them")
    parser.add_argument("--preset", type=Path, default=ROOT / "config/presets/quick.yaml")
    parser.add_argument("--quick", action="store_true", help="train nothing: judge what is there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ukis-python", type=Path, default=ROOT / ".venv/ukis/bin/python")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    real = Real(arguments.real)
    params = load(arguments.preset).model_copy(update={"seed": derive_seed(arguments.seed, "transfer")})
    ways: dict[str, Callable[[Path], Masks]] = {
        "B02 > 700": lambda work: {name: (chip[0] > 700).astype(np.uint8) for name, chip in real.chips.items()}
    }
    if arguments.ukis_python.exists():
        ways["ukis-csmask"] = lambda work: by_ukis(real, arguments.ukis_python, work)
    if arguments.model:
        ways[str(arguments.model)] = lambda work: by_model(load_bundle(arguments.model), real.chips)
    if not arguments.quick:
        ways["synthetic alone"] = lambda work: by_model(Trainer(params, real, work).model("alone", None), real.chips)
        ways["with real chips"] = lambda work: with_real(Trainer(params, real, work), real)
    rows = []
    for way, masks_of in ways.items():
        with tempfile.TemporaryDirectory() as work:
            rows.append({"way": way, **figures(masks_of(Path(work)), real)})
    table = pd.DataFrame(rows).set_index("way")
    print("global Jaccard of all chips and of the partly cloudy ones; per chip: Jaccard, or where a label has no")
    print("cloud, the share of clear pixels that stay clear (0-1)")
    print(table.round(3).to_string())
    if arguments.json:
        write_json(arguments.json, table.to_dict("index"))


def with_real(trainer: Trainer, real: Real) -> Masks:
    """Masks of each location by a model that saw the real chips of all others."""
    masks: Masks = {}
    for number, place in enumerate(sorted(set(real.location.values()))):
        chips = {name: chip for name, chip in real.chips.items() if real.location[name] == place}
        masks |= by_model(trainer.model(f"without{number}", place), chips)
    return masks


def figures(masks: Masks, real: Real) -> dict[str, float]:
    """Global Jaccard, and a figure per chip."""
    counts = {n: confusion((masks[n] == 1)[None], label[None])[0] for n, label in real.labels.items()}
    tp, fp, fn, _ = np.sum(list(counts.values()), axis=0)
    result = {"global": tp / (tp + fp + fn)}
    partly = [count for count in counts.values() if count[0] + count[2] and count[1] + count[3]]
    tp, fp, fn, _ = np.sum(partly, axis=0)
    result["partly_cloudy"] = tp / (tp + fp + fn)
    for name, (hit, false, missed, clear) in counts.items():
        result[name] = hit / (hit + false + missed) if hit + missed else clear / (clear + false)
    return result


if __name__ == "__main__":
    main()
