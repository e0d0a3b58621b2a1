"""Performance of models of synthetic chips on real ones, compared with a threshold and another project's network.

    python -m venv .venv/ukis && .venv/ukis/bin/pip install "ukis-csmask[cpu]==1.0.0" rasterio
    python benchmarks/real_chips.py --chips ../shared/real-chips --model models/bundle
    python benchmarks/real_chips.py --chips ../shared/real-chips --picture docs/images/real_chips.jpg

The real chips are in the challenge's layout, with labels. Ways: blue (B02) above 700 DN; ukis-csmask's four-band
network (`baselines/ukis_masks.py`, in an environment of its own; left out without it); and the bundle or model folder
that is given. Without one the program trains two by `baselines/synthetic_models.py`: `synthetic`, of synthetic chips
without label errors, and `with_real`, tuned further on the real chips of all locations but the one that is judged.

Jaccard is the sum of intersections over the sum of unions. `jaccard` is that of the given model, or of `synthetic`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.config.params import Params, load, validate
from cloudcover.data.chips import image_size, read_chip
from cloudcover.data.layout import read_metadata
from cloudcover.masks.overlap import confusion, jaccard_index
from cloudcover.runtime.files import write_json

if TYPE_CHECKING:  # torch takes seconds to import, which the baselines alone don't need
    from baselines.synthetic_models import Trainer

    from cloudcover.predict.predictor import Predictor

ROOT = Path(__file__).resolve().parents[1]
BANDS = ["B02", "B03", "B04", "B08"]
THRESHOLD_DN = 700
RECIPE = {  # over the preset
    "data": {"chip_size": 128},
    "synthetic": {"locations": 200, "scenes": 200, "chips": 600, "unlabelled": 0.0},
    "training": {"steps": 266, "batch_size": 16, "warmup_steps": 30},
    "augmentation": {"d4": 1.0, "hflip": 0.0, "vflip": 0.0, "affine": 0.5, "zoom": 1.6, "brightness_contrast": 0.5},
}
Masks = dict[str, NDArray[np.uint8]]


class Real:
    """The labelled real chips: images, labels and locations by id.

    Args:
        folder: A set in the challenge's layout; its chips may be of any size.
        names: The chips to take; None: all that have a label.
    """

    def __init__(self, folder: Path, names: Collection[str] | None = None) -> None:
        table = read_metadata(folder)
        self.location: dict[str, str] = {}
        self.chips: dict[str, NDArray[np.uint16]] = {}
        self.labels: Masks = {}
        for row in table[table["split"] == "train"].itertuples():
            if names is not None and row.chip_id not in names:
                continue
            label = folder / "train_labels" / f"{row.chip_id}.tif"
            chip = read_chip(folder / "train_features" / row.chip_id, label, BANDS, image_size(label, "label"))
            assert chip.label is not None
            self.location[row.chip_id] = row.location
            self.chips[row.chip_id], self.labels[row.chip_id] = chip.bands, chip.label


def recipe(preset: Path, seed: int, device: str) -> Params:
    """Return the preset with the changes of this benchmark."""
    values = load(preset).model_dump(mode="json")
    for section, changes in RECIPE.items():
        values[section] |= changes
    values["compute"]["device"] = device
    return validate(values | {"seed": seed})


def by_model(predictor: Predictor, chips: dict[str, NDArray[np.uint16]]) -> Masks:
    """Return masks of a predictor, with its own threshold."""
    from cloudcover.predict.files import chip_percentiles

    masks = {}
    for name, chip in chips.items():
        masks[name] = predictor.masks(chip[None], chip_percentiles(chip[None], 0))[0]
    return masks


def by_ukis(real: Real, python: Path, level: str = "l2a") -> Masks:
    """Return masks by ukis-csmask's network for `l2a` or `l1c`, run in its own environment."""
    program = ROOT / "benchmarks" / "baselines" / "ukis_masks.py"
    with tempfile.TemporaryDirectory() as name:
        chips, masks = Path(name) / "chips.npz", Path(name) / "masks.npz"
        np.savez(chips, **real.chips)
        subprocess.run([python, program, chips, masks, level], check=True)
        return dict(np.load(masks))


def by_trained(real: Real, trainer: Trainer, device: str) -> dict[str, Masks]:
    """Return masks of the two models that are trained here; each location is masked by a model that has not seen it."""
    from cloudcover.predict.predictor import Predictor

    masks = {"synthetic": by_model(Predictor([trainer.alone()], "vflip", device), real.chips), "with_real": {}}
    for place in sorted(set(real.location.values())):
        chips = {name: chip for name, chip in real.chips.items() if real.location[name] == place}
        masks["with_real"] |= by_model(Predictor([trainer.with_real([place])[0]], "vflip", device), chips)
    return masks


def figures(masks: Masks, labels: Masks) -> dict[str, float]:
    """Compute the Jaccard of all chips (`jaccard`), of the partly cloudy (`partly`), and by chip [0-1].

    Where a chip's label has no cloud, its figure is the share of clear pixels that stay clear.
    """
    counts = {n: confusion((masks[n] == 1)[None], label[None])[0] for n, label in labels.items()}
    partly = [count for count in counts.values() if count[0] + count[2] and count[1] + count[3]]
    result = {"jaccard": _jaccard(list(counts.values())), "partly": _jaccard(partly)}
    for name, (hit, false, missed, clear) in counts.items():
        result[name] = hit / (hit + false + missed) if hit + missed else clear / (clear + false)
    return {name: float(value) for name, value in result.items()}


def _jaccard(counts: list[NDArray[np.int64]]) -> float:
    return float(jaccard_index(np.sum(counts, axis=0))) if counts else 1.0


def flat(rows: dict[str, dict[str, float]], own: str | None) -> dict[str, float]:
    """Flatten figures to `jaccard_<way>`, `partly_<way>` and `<chip>_<way>`; `jaccard` is that of the way `own`."""
    values = {f"{figure}_{way}": value for way, row in rows.items() for figure, value in row.items()}
    return ({"jaccard": rows[own]["jaccard"]} if own else {}) | values


def picture(path: Path, real: Real, ways: dict[str, Masks]) -> None:
    """Draw chips that are not all cloud: true colour with the label's outline, and the errors of each way."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name, label in real.labels.items() if not (label == 1).all()]
    figure, axes = plt.subplots(len(names), 1 + len(ways), squeeze=False, constrained_layout=True,
                                figsize=(3 * (1 + len(ways)), 3.1 * len(names)))  # fmt: skip
    for row, name in zip(axes, names, strict=True):
        colour = np.clip(real.chips[name][2::-1].transpose(1, 2, 0) / 3500, 0, 1) ** 0.7
        label = real.labels[name] == 1
        row[0].imshow(colour)
        row[0].set_ylabel(name)
        if label.any():
            row[0].contour(label, [0.5], colors="#ff8c00", linewidths=0.7)
        for axis, (way, masks) in zip(row[1:], ways.items(), strict=True):
            mask, shown = masks[name] == 1, colour * 0.5
            for pixels, paint in ((mask & label, (0.9, 0.9, 0.9)), (mask & ~label, (1, 0.2, 0.2)),
                                  (~mask & label, (0.2, 0.4, 1))):  # fmt: skip
                shown[pixels] = paint
            axis.imshow(shown)
            axis.set_title(way, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=Path, required=True, help="folder of real chips in the challenge's layout")
    parser.add_argument("--model", type=Path, help="a bundle or model folder that was trained without them")
    parser.add_argument("--preset", type=Path, default=ROOT / "config/presets/quick.yaml")
    parser.add_argument("--quick", action="store_true", help="train nothing: evaluate existing models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--ukis-python", type=Path, default=ROOT / ".venv/ukis/bin/python")
    parser.add_argument("--picture", type=Path, help="draw the chips and the errors here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    real = Real(arguments.chips)
    ways = {"threshold": {name: (chip[0] > THRESHOLD_DN).astype(np.uint8) for name, chip in real.chips.items()}}
    if arguments.ukis_python.exists():
        ways["ukis"] = by_ukis(real, arguments.ukis_python)
    own = None
    if arguments.model:
        from cloudcover.predict.bundle import load_bundle

        own = "model"
        ways[own] = by_model(load_bundle(arguments.model, arguments.device), real.chips)
    elif not arguments.quick:
        from baselines.real_views import RealChip
        from baselines.synthetic_models import Trainer

        own = "synthetic"
        chips = [RealChip(n, real.location[n], "l2a", bands, real.labels[n]) for n, bands in real.chips.items()]
        with tempfile.TemporaryDirectory() as work:
            params = recipe(arguments.preset, arguments.seed, arguments.device)
            ways |= by_trained(real, Trainer(params, chips, Path(work)), arguments.device)
    rows = {way: figures(masks, real.labels) for way, masks in ways.items()}
    print("Jaccard of all chips and of the partly cloudy ones; per chip: Jaccard, or where a label has no cloud, the")
    print("share of clear pixels that stay clear")
    print(pd.DataFrame(rows).T.round(3).to_string())
    if arguments.picture:
        picture(arguments.picture, real, ways)
    if arguments.json:
        write_json(arguments.json, flat(rows, own))


if __name__ == "__main__":
    main()
