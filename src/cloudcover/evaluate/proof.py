"""The share of the cost of wrong labels that the method recovers, on sets with known true masks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cloudcover.config.runs import BASELINE, FINAL, ORACLE, is_round, round_number
from cloudcover.data import tables
from cloudcover.evaluate.gap import difference, difference_column, differs
from cloudcover.evaluate.replicates import CHAIN, Replicates
from cloudcover.runtime.files import atomic, read_json

LABEL_COLUMNS = [
    *CHAIN, "round", "audit_precision", "audit_recall", "precision", "recall", "wrong_used", "candidates", "accepted",
    "accepted_share", "jaccard", "jaccard_given", "jaccard_all", "jaccard_partly", "jaccard_known", "new_share",
    "replaced_share", "mended_share", "union_pixels",
]  # fmt: skip

Chain = tuple[int, int]
"""Set and training that a run of the workflow belongs to."""


def chain_folders(results: Sequence[str]) -> dict[Chain, Path]:
    """Map runs of the workflow to their folders, from paths like `…/seed3/training1/reports/truth.json`."""
    folders = [Path(path).parents[1] for path in results]
    return {
        (int(folder.parent.name.removeprefix("seed")), int(folder.name.removeprefix("training"))): folder
        for folder in folders
    }


def read_counts(folders: Mapping[Chain, Path]) -> pd.DataFrame:
    """Read the counts against true masks of several runs of the workflow.

    Args:
        folders: Folders of the runs.

    Returns:
        `tables.COUNTS` with the columns of `replicates.CHAIN`.
    """
    parts = []
    for chain, folder in folders.items():
        counts = tables.COUNTS.read(folder / "reports" / "tables" / "truth_chips.csv")
        parts.append(counts.assign(**dict(zip(CHAIN, chain, strict=True))))
    return pd.concat(parts, ignore_index=True)


def label_table(folders: Mapping[Chain, Path]) -> pd.DataFrame:
    """Tabulate the fate of the labels: one row per run of the workflow and round.

    Returns:
        `set`, `training`, `round`, `audit_precision` and `audit_recall` of the first verdicts, and the figures of
        `truth.evaluate_truth` after the round, some of which are missing if a round accepted nothing.
    """
    rows: list[dict[str, Any]] = []
    for chain, folder in folders.items():
        truth = read_json(folder / "reports" / "truth.json")
        first = {f"audit_{name}": truth["labels"][name] for name in ("precision", "recall")}
        first |= dict(zip(CHAIN, chain, strict=True))
        rows += [{"round": name, **first, **row} for name, row in truth["rounds"].items()]
    return pd.DataFrame(rows, columns=LABEL_COLUMNS)


def steps(found: Replicates) -> pd.DataFrame:
    """Compare each run with the one before it: its gain over all repetitions, and in how many of them it gains.

    Returns:
        One row per run after the first, in the order of the workflow (baseline, rounds, final, oracle): `run`, `over`,
        `gain` with its interval, `differs` or `models_differ`, `chains_above` and `chains`.
    """
    rounds = sorted((run for run in found.chains.columns if is_round(run)), key=round_number)
    order = [run for run in (BASELINE, *rounds, FINAL, ORACLE) if run in found.chains.columns]
    rows: list[dict[str, Any]] = []
    for over, run in itertools.pairwise(order):
        estimate = found.estimate(difference(run, over))
        above = int((found.chains[run] > found.chains[over]).sum())
        row = {"run": run, "over": over, **estimate.columns("gain"), difference_column(found): differs(estimate)}
        rows.append({**row, "chains_above": above, "chains": len(found.chains)})
    return pd.DataFrame(rows)


def plot(runs: pd.DataFrame, chains: pd.DataFrame, path: Path) -> None:
    """Plot each run's Jaccard on true masks: the mean with its interval, and a dot per set and training.

    Args:
        runs: Result of `gap.closed_gap`.
        chains: Attribute `chains` of `Replicates`.
        path: PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    place = np.arange(len(runs))
    errors = [runs["jaccard"] - runs["jaccard_low"], runs["jaccard_high"] - runs["jaccard"]]
    axes.errorbar(place, runs["jaccard"], errors, fmt="o", capsize=4, label="mean, 95 % interval")
    for number, values in enumerate(chains[list(runs["run"])].to_numpy(float)):
        axes.plot(place + 0.15, values, ".", color="0.6", label=None if number else "one set and training")
    axes.set_xticks(place, list(runs["run"]))
    axes.set_ylabel("global Jaccard on true masks [0-1]")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=120)


def plot_gains(tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Plot the gains of several comparisons, each in its own panel.

    Args:
        tables: Results of `gap.gains` by panel title; the first column contains the names.
        path: PNG file to write.
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
    panels[-1].set_xlabel("gain in global Jaccard on true masks, 95 % interval")
    with atomic(path) as part:
        figure.savefig(part, format="png", dpi=120)
