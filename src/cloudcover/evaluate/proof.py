"""How much of what wrong labels cost the method wins back, on sets whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cloudcover.data import tables
from cloudcover.evaluate.gap import closed_gap
from cloudcover.runtime.files import atomic, read_json

LABEL_COLUMNS = [
    "seed", "round", "audit_precision", "audit_recall", "precision", "recall", "wrong_used", "accepted", "jaccard",
    "jaccard_given", "replaced_share", "union_pixels",
]  # fmt: skip


def chain_folders(results: Sequence[str]) -> dict[int, Path]:
    """Folders of several runs of the chain by their seed, from paths like `…/seed3/reports/truth.json`."""
    folders = [Path(path).parents[1] for path in results]
    return {int(folder.name.removeprefix("seed")): folder for folder in folders}


def read_counts(folders: Mapping[int, Path]) -> pd.DataFrame:
    """Counts against true masks of several runs of the chain, as if they were one set.

    Args:
        folders: of the runs, by seed.

    Returns:
        `tables.COUNTS`; chips and locations carry their seed, since each seed has its own set.
    """
    parts = []
    for seed, folder in folders.items():
        counts = tables.COUNTS.read(folder / "reports" / "tables" / "truth_chips.csv")
        parts.append(counts.assign(**{name: f"{seed}-" + counts[name] for name in ("chip_id", "location", "scene")}))
    return pd.concat(parts, ignore_index=True)


def label_table(folders: Mapping[int, Path]) -> pd.DataFrame:
    """Tabulate what became of the labels: a row per seed and round.

    Returns:
        `seed`, `round`, `audit_precision` and `audit_recall` of the first verdicts, those after the round (`precision`,
        `recall`), `wrong_used`: wrong labels from which the next training learns, `accepted` pseudo-labels, their
        global Jaccard on true masks (`jaccard`), that of the labels given to the same chips (`jaccard_given`),
        `replaced_share`: of wrong labels, and `union_pixels`: of pseudo-labels and true masks.
    """
    rows = []
    for seed, folder in folders.items():
        truth = read_json(folder / "reports" / "truth.json")
        audit = {f"audit_{name}": truth["labels"][name] for name in ("precision", "recall")}
        rows += [{"seed": seed, "round": name, **audit, **row} for name, row in truth["rounds"].items()]
    return pd.DataFrame(rows, columns=LABEL_COLUMNS)


def by_seed(counts: pd.DataFrame, seeds: Sequence[int]) -> pd.DataFrame:
    """Global Jaccard of each run: a row per seed."""
    parts = [counts[counts["location"].str.startswith(f"{seed}-")] for seed in seeds]
    return pd.DataFrame([closed_gap(part, 1).set_index("run")["jaccard"] for part in parts], index=list(seeds))


def plot(runs: pd.DataFrame, seeds: pd.DataFrame, path: Path) -> None:
    """Draws each run's Jaccard on true masks: the value of all sets with its interval, and a dot per set.

    Args:
        runs: from `gap.closed_gap`.
        seeds: from `by_seed`.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(runs))
    errors = [runs["jaccard"] - runs["jaccard_low"], runs["jaccard_high"] - runs["jaccard"]]
    axes.errorbar(place, runs["jaccard"], errors, fmt="o", capsize=4, label="all sets, 95 % interval by location")
    for number, values in enumerate(seeds[list(runs["run"])].to_numpy(float)):
        axes.plot(place + 0.15, values, ".", color="0.6", label=None if number else "one set")
    axes.set_xticks(place, list(runs["run"]))
    axes.set_ylabel("global Jaccard on true masks [0-1]")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=120)


def plot_gains(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draws the gains of several comparisons, each in a panel of its own.

    Args:
        tables: from `gap.gains`, by the title of their panel; the first column has the names.
        path: of the PNG.
    """
    from matplotlib.figure import Figure

    heights = [len(table) for table in tables.values()]
    figure = Figure(figsize=(6.4, 0.8 * len(heights) + 0.28 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        place = np.arange(len(table))
        errors = [table["gain"] - table["gain_low"], table["gain_high"] - table["gain"]]
        axes.errorbar(table["gain"], place, xerr=errors, fmt="o", capsize=3)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.set_yticks(place, list(table.iloc[:, 0]))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_title(title, loc="left", fontsize=10)
    panels[-1].set_xlabel("gain in global Jaccard on true masks, 95 % interval by location")
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=120)
