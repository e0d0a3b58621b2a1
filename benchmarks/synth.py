"""Speed of the synthetic source, and the distance of its statistics from those of real chips.

    python benchmarks/synth.py --quick --real chip_statistics.csv --plot docs/images/synthetic_statistics.png

`--real` takes a table with a row per real chip: `cloud_coverage` [0-1] and, for each of four bands, `mean_` and `std_`
[DN], with `corr_<band>_ir`. In the published table (github.com/Elkapeer/AI-Powered-Cloud-Masking) the names `red` and
`blue` stand for each other: its `mean_red` is B02 and its `mean_blue` is B04, as a comparison with the chips themselves
shows. The columns are read accordingly; `ks_mean_red_as_named` is the distance of B04 to the column called `mean_red`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.masks.overlap import iou
from cloudcover.runtime.files import write_json
from cloudcover.synthetic import labels, scene, sites
from cloudcover.synthetic.generate import generate

REAL_NAMES = {"blue": "red", "green": "green", "red": "blue", "ir": "ir"}  # ours -> the published table's
BANDS = {"blue": "B02", "green": "B03", "red": "B04", "ir": "B08"}
STATISTICS = {
    "cloud_coverage": ["cloud_coverage"],
    "mean": [f"mean_{name}" for name in BANDS],
    "std": [f"std_{name}" for name in BANDS],
    "corr": [f"corr_{name}_ir" for name in ("red", "green", "blue")],
}


def _statistics(folder: Path) -> dict[str, float]:
    """Return the published table's statistics of one labelled chip."""
    bands = {}
    for name, band in BANDS.items():
        with rasterio.open(folder / f"{band}.tif") as file:
            bands[name] = file.read(1).astype(np.float64)
    with rasterio.open(folder.parent.parent / "train_labels" / f"{folder.name}.tif") as file:
        label = file.read(1)
    row = {"cloud_coverage": float(np.mean(label == 1))}
    for name, values in bands.items():
        row |= {f"mean_{name}": float(values.mean()), f"std_{name}": float(values.std())}
        if name != "ir":
            row[f"corr_{name}_ir"] = float(np.corrcoef(values.ravel(), bands["ir"].ravel())[0, 1])
    return row


def _read_real(path: Path) -> pd.DataFrame:
    """Return the published table with its colours under their right names."""
    table = pd.read_csv(path)
    names = {f"{kind}_{theirs}": f"{kind}_{ours}" for ours, theirs in REAL_NAMES.items() for kind in ("mean", "std")}
    names |= {f"corr_{theirs}_ir": f"corr_{ours}_ir" for ours, theirs in REAL_NAMES.items() if ours != "ir"}
    return table.rename(columns=names)


def _distances(synthetic: pd.DataFrame, real: pd.DataFrame) -> dict[str, float]:
    columns = [column for group in STATISTICS.values() for column in group]
    return {c: float(ks_2samp(synthetic[c].dropna(), real[c].dropna()).statistic) for c in columns}


def _plot(synthetic: pd.DataFrame, real: pd.DataFrame, path: Path) -> None:
    """Plot overlaid histograms of every statistic, real and synthetic."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    distances = _distances(synthetic, real)
    figure, axes = plt.subplots(3, 4, figsize=(13, 8), constrained_layout=True)
    columns = [*STATISTICS["mean"], *STATISTICS["std"], *STATISTICS["corr"], "cloud_coverage"]
    for axis, column in zip(axes.flat, columns, strict=True):
        low, high = (0, 1) if column == "cloud_coverage" else np.nanpercentile(real[column], [0.2, 99.5])
        bins = np.linspace(low, high, 31)
        for table, label, colour in ((real, "real", "#888888"), (synthetic, "synthetic", "#1f77b4")):
            weights = np.full(len(table), 1 / len(table))
            axis.hist(np.clip(table[column], low, high), bins, weights=weights, label=label, color=colour, alpha=0.55)
        axis.set_title(f"{_title(column)}   KS {distances[column]:.2f}", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.supylabel("share of chips", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _show(axis: Any, chip: scene.Chip, label: NDArray[np.bool_] | None, title: str) -> None:
    """Show a chip in true colour with a fixed stretch, with outlines of the true mask (cyan) and a label (orange)."""
    axis.imshow(np.clip(chip.bands[2::-1].transpose(1, 2, 0) / 4500, 0, 1) ** 0.7)
    for mask, colour in ((chip.mask, "#00e5ff"), (label, "#ff8c00")):
        if mask is not None and 0 < mask.mean() < 1:
            axis.contour(mask, [0.5], colors=colour, linewidths=0.7)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def _pictures(seed: int, folder: Path) -> None:
    """Draw two contact sheets: partly cloudy chips with ordinary labels, and one example of each kind of error."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 4, figsize=(12, 9.6), constrained_layout=True)
    empty, lands = list(axes.flat), Counter[str]()
    for number in range(1000):
        of = sites.scene(seed, number % 60, 30)
        if not empty:
            break
        if lands[of.site.biome] == 2 or not 0.1 < sites.coverage(seed, of, number // 60) < 0.75:
            continue
        lands[of.site.biome] += 1
        chip = scene.render(seed, of, number // 60, 256)
        label = labels.human(chip, np.random.default_rng(number))
        _show(empty.pop(0), chip, label, f"{of.site.biome}, mostly {of.kind}, cover {chip.mask.mean():.0%}")
    figure.savefig(folder / "synthetic_chips.jpg", dpi=80, pil_kwargs={"quality": 88})
    plt.close(figure)

    figure, axes = plt.subplots(3, 3, figsize=(9, 9.6), constrained_layout=True)
    found: set[str] = set()
    for number in range(1000):
        if len(found) == len(LABEL_ERRORS):
            break
        of = sites.scene(seed, number % 60, 30)
        chip = scene.render(seed, of, 2 + number // 60, 256)
        if not 0.15 < chip.mask.mean() < 0.7:
            continue
        rng = np.random.default_rng(number)
        other = partial(scene.true_mask, seed, of, 3 + number // 60, 256)
        wrong, kind = labels.spoil(labels.human(chip, rng), chip, other, rng)
        if kind not in found:
            title = f"{kind}, IoU {iou(wrong, chip.mask):.2f}"
            _show(axes.flat[LABEL_ERRORS.index(kind)], chip, wrong, title)
            found.add(kind)
    figure.savefig(folder / "synthetic_errors.jpg", dpi=75, pil_kwargs={"quality": 85})
    plt.close(figure)


def _title(column: str) -> str:
    if column == "cloud_coverage":
        return "label coverage [share]"
    kind, name = column.split("_")[:2]
    return f"correlation of {BANDS[name]} with B08" if kind == "corr" else f"{kind} of {BANDS[name]} [DN]"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 chips instead of 1,200")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="accepted for uniformity; the source runs on the CPU")
    parser.add_argument("--real", type=Path, help="statistics of real chips (CSV)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--chips", type=int, help="number of chips")
    parser.add_argument("--size", type=int, default=256, help="height and width of a chip [pixels]")
    parser.add_argument("--plot", type=Path, help="draw the histograms here (needs --real)")
    parser.add_argument("--pictures", type=Path, help="draw contact sheets into this folder")
    args = parser.parse_args()

    chips = args.chips or (300 if args.quick else 1200)
    # As in the real set: about as many locations as scenes.
    scenes = max(1, chips // 4)
    params = SyntheticParams(locations=scenes, scenes=scenes, chips=chips, unlabelled=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(
            SyntheticParams(chips=4), DataParams(chip_size=args.size), args.seed, folder / "warm", folder / "warm/truth"
        )
        wall, busy = time.perf_counter(), time.process_time()
        generate(params, DataParams(chip_size=args.size), args.seed, folder / "raw", folder / "truth")
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        synthetic = pd.DataFrame([_statistics(f) for f in sorted((folder / "raw/train_features").iterdir())])

    figures = {
        "chips": chips,
        "size_pixels": args.size,
        "chips_per_s_core": chips / wall,
        "chips_per_s_cpu": chips / busy,
    }
    figures |= {f"synthetic_{c}": float(synthetic[c].mean()) for c in ("cloud_coverage", "mean_red", "mean_ir")}
    if args.real:
        real = _read_real(args.real)
        distances = _distances(synthetic, real)
        figures |= {f"ks_{c.removeprefix('cloud_').replace('_ir', '_nir')}": d for c, d in distances.items()}
        figures["ks_mean_red_as_named"] = float(ks_2samp(synthetic["mean_red"], real["mean_blue"]).statistic)
        if args.plot:
            _plot(synthetic, real, args.plot)
    else:
        print("no --real FILE: the distances to real statistics are omitted")
    for key, value in figures.items():
        print(f"{key:28s} {value:12.4g}")
    if args.pictures:
        _pictures(args.seed, args.pictures)
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
