"""False cloud by distance to the chip's border, for networks with and without mirrored pixels around their chips.

    python benchmarks/border.py --quick
    python benchmarks/border.py --seeds 0 1 --real ../shared/real-chips ../shared/real-labels --json border.json

A way is the border that a network is trained with, `/` and the one that it predicts with, if another, and `:` and the
size of its training windows, if they are not whole chips: `0`, `0/16`, `16`, `16:64` [pixels]. Networks learn from
synthetic chips without label errors, by the preset's recipe, and are judged on chips of other locations. Real chips, in
the challenge's layout, are judged by the same networks; those whose label most reviewers rejected are left out
(`label_votes.csv`, if the folder has one).

For each way: Jaccard, seconds of training, and the share of clear pixels that become cloud, by distance to the border,
as means over the seeds. `false_ratio` is that of the outer 4 pixels over that of all others, for the last way.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.params import Params, load, validate
from cloudcover.config.training import TrainingConfig
from cloudcover.data.chips import read_chip
from cloudcover.data.layout import read_metadata, write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import write_json
from cloudcover.synthetic.generate import generate
from cloudcover.train.run import train
from cloudcover.train.split import Split

ROOT = Path(__file__).resolve().parents[1]
HELD_OUT = 3
"""Every third location is evaluated."""
MOST_VOTES = 2
"""Maximum number of reviewers, of four, who rejected a label; other labels are no evidence about a mask."""
EDGES = [0, 2, 4, 8, 16]
"""Distances to the border at which columns of the table begin [pixels]."""
BORDER = 4
"""Width of the border in `false_ratio` [pixels]."""


@dataclass(frozen=True)
class Way:
    """The training and prediction of a network: borders and training window [pixels]."""

    trained: int
    predicted: int
    crop: int | None

    @classmethod
    def of(cls, text: str) -> Way:
        """Read `TRAINED[/PREDICTED][:CROP]`."""
        borders, _, crop = text.partition(":")
        trained, _, predicted = borders.partition("/")
        return cls(int(trained), int(predicted or trained), int(crop) if crop else None)


@dataclass(frozen=True)
class Chips:
    """Chips of one size with reliable labels: N x B x H x W [DN], N x H x W, N x B x 2 [DN]."""

    dn: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    percentiles: NDArray[np.float32]


class Networks:
    """Networks of a synthetic set, trained once each.

    Args:
        params: The recipe and the set; seed of the set.
        work: Folder for chips and models.
    """

    def __init__(self, params: Params, work: Path) -> None:
        self.params, self.work = params, work
        exact = params.synthetic.model_copy(update={"label_errors": 0.0, "unlabelled": 0.0})
        generate(exact, params.data, params.seed, work / "raw", work / "truth", progress=False)
        write_file_table(work / "raw", "synthetic")
        pack(work / "raw", work / "store", work / "quarantine.csv", params.data)
        self.store = ChipStore(work / "store")
        places = self.store.index["location"]
        held = places.isin(sorted(places.unique())[::HELD_OUT])
        self.split = Split(self._part(self.store.index[~held], 1), self._part(self.store.index[held], 0))
        self.seconds: dict[Path, float] = {}

    def held_out(self) -> Chips:
        """Return the chips that no network has seen."""
        ids = self.split.validation["chip_id"].tolist()
        return Chips(self.store.chips(ids), self.store.labels(ids), self.store.percentiles(ids))

    def predictor(self, way: Way, seed: int) -> tuple[Predictor, float]:
        """Return the network of a way, and the seconds that its training took."""
        folder = self.work / f"border{way.trained}-crop{way.crop}-seed{seed}"
        if folder not in self.seconds:
            values = self.params.model_dump(mode="json")
            values["model"]["border"], values["augmentation"]["crop_size"] = way.trained, way.crop
            config = TrainingConfig.of(validate(values | {"seed": seed}))
            begin = time.perf_counter()
            train(config, self.store, self.split, folder, self.work / "state", run="border", fold=0)
            self.seconds[folder] = time.perf_counter() - begin
        predictor = Predictor([folder], "vflip", self.params.compute.device)
        predictor.engines[0].network.border = way.predicted  # type: ignore[attr-defined]
        return predictor, self.seconds[folder]

    @staticmethod
    def _part(chips: pd.DataFrame, fold: int) -> pd.DataFrame:
        columns = ["chip_id", "label", "weight", "scene", "fold"]
        return chips.assign(label="human", weight=1.0, fold=fold)[columns].reset_index(drop=True)


def real_chips(folders: list[Path], bands: list[str]) -> Chips:
    """Return labelled real chips, each once, without those whose label most reviewers rejected."""
    found = {}
    for folder in folders:
        table = read_metadata(folder)
        votes = pd.Series(dtype=int)
        if (folder / "label_votes.csv").exists():
            votes = pd.read_csv(folder / "label_votes.csv", index_col="chip_id")["votes"]
        for name in table.loc[table["split"] == "train", "chip_id"]:
            if votes.get(name, 0) <= MOST_VOTES:
                label = folder / "train_labels" / f"{name}.tif"
                found[name] = read_chip(folder / "train_features" / name, label, bands, (512, 512))
    dn = np.stack([chip.bands for chip in found.values()])
    low_high = np.percentile(dn, (2, 98), axis=(2, 3)).transpose(1, 2, 0).astype(np.float32)
    return Chips(dn, np.stack([chip.label for chip in found.values() if chip.label is not None]), low_high)


def distances(side: int) -> NDArray[np.int64]:
    """Return the distance of each pixel of a square to its border, 0 for the outermost."""
    line = np.minimum(np.arange(side), np.arange(side)[::-1])
    return np.asarray(np.minimum(line[:, None], line))


def figures(masks: NDArray[np.uint8], chips: Chips) -> dict[str, float]:
    """Compute Jaccard, the share of clear pixels that become cloud by distance, and border against inside."""
    cloud, clear, found = chips.labels == 1, chips.labels == 0, masks == 1
    away = distances(masks.shape[-1])

    def false_cloud(least: int, below: float) -> float:
        wanted = clear & (away >= least) & (away < below)
        return float((found & wanted).sum() / wanted.sum())

    row = {"jaccard": float((found & cloud).sum() / ((found | cloud) & (chips.labels != 255)).sum())}
    for least, below in zip(EDGES, [*EDGES[1:], np.inf], strict=True):
        row[f"{least}-{below:.0f} px" if below < np.inf else f"{least}+ px"] = false_cloud(least, below)
    row["ratio"] = false_cloud(0, BORDER) / max(false_cloud(BORDER, np.inf), 1e-9)
    return row


def main() -> None:
    """Train, predict, and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small set and two ways: half a minute")
    parser.add_argument("--ways", nargs="+", default=["0", "0/16", "16"], help="TRAINED[/PREDICTED][:CROP]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--chips", type=int, default=360, help="chips of the synthetic set; a third is evaluated")
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps of a training (%(default)s)")
    parser.add_argument("--preset", type=Path, default=ROOT / "config/presets/quick.yaml")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="folders of real chips")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.quick:
        options.ways, options.chips, options.steps = ["0", "16"], 120, 60
    params = load(options.preset).model_dump(mode="json")
    params["synthetic"] |= {"chips": options.chips, "scenes": options.chips // 4, "locations": options.chips // 8}
    params["training"]["steps"] = options.steps
    params["compute"]["device"] = options.device
    found: dict[str, pd.DataFrame] = {}
    with tempfile.TemporaryDirectory() as work:
        networks = Networks(validate(params), Path(work))
        sets = {"synthetic": networks.held_out()}
        if options.real:
            sets["real"] = real_chips(options.real, networks.params.data.bands)
        rows: dict[str, list[dict[str, float | str]]] = {name: [] for name in sets}
        for seed in options.seeds:
            for text in options.ways:
                predictor, seconds = networks.predictor(Way.of(text), seed)
                for name, chips in sets.items():
                    row = figures(predictor.masks(chips.dn, chips.percentiles), chips)
                    rows[name].append({"way": text, "seconds": seconds, **row})
        for name, chips in sets.items():
            found[name] = pd.DataFrame(rows[name]).groupby("way", sort=False).mean()
            print(f"{name}: {len(chips.dn)} chips of {chips.dn.shape[-1]} pixels, {len(options.seeds)} seeds")
            print(found[name].round(3).to_string())
    if options.json:
        write_json(
            options.json, {f"false_ratio_{name}": float(table["ratio"].iloc[-1]) for name, table in found.items()}
        )


if __name__ == "__main__":
    main()
