"""The figures of a run on the clean labels of held-out scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cloudcover.config.sections import EvaluationParams, Tta
from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.compare import by_coverage, by_tta, choose_models, pairs
from cloudcover.evaluate.gap import BASELINE
from cloudcover.evaluate.metrics import bootstrap, by_group, jaccard, location_mean, paired_bootstrap
from cloudcover.evaluate.runs import count
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.runtime.files import write_text

FINAL = "final"


def load_runs(folders: Sequence[Path], names: Sequence[str]) -> dict[str, OutOfFold]:
    """Out-of-fold predictions by run; the members of the final ensemble are also averaged to the run `final`.

    Args:
        folders: outputs of `predict_oof`.
        names: names of the runs, in the same order; those of members begin with `final/`.
    """
    runs = {name: OutOfFold([folder]) for name, folder in zip(names, folders, strict=True)}
    members = [oof.folders[0] for name, oof in runs.items() if name.startswith(f"{FINAL}/")]
    return {**runs, FINAL: OutOfFold(members)}


def figures(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> dict[str, float]:
    """Global Jaccard with its 95 % interval by location, location mean, precision, recall, accuracy (0-1)."""
    estimate = bootstrap(counts, "location", params.resamples, seed)
    whole = by_group(counts.assign(all="all"), "all").iloc[0]
    return {
        **estimate.columns("jaccard"),
        "jaccard_location_mean": location_mean(counts),
        "precision": float(whole["precision"]),
        "recall": float(whole["recall"]),
        "accuracy": float(whole["accuracy"]),
        "chips": float(whole["chips"]),
    }


def by_run(counts: pd.DataFrame, tta: Tta, params: EvaluationParams, seed: int) -> dict[str, dict[str, float]]:
    """`figures` of each run under one policy."""
    chosen = counts[counts["tta"] == tta]
    return {str(run): figures(part, params, seed) for run, part in chosen.groupby("run", sort=False)}


def gain(counts: pd.DataFrame, tta: Tta, params: EvaluationParams, seed: int) -> dict[str, float]:
    """Global Jaccard of the final model minus the baseline's, with its paired 95 % interval by location."""
    chosen = counts[counts["tta"] == tta].set_index("run")
    final, baseline = (chosen.loc[run].reset_index() for run in (FINAL, BASELINE))
    return paired_bootstrap(final, baseline, "location", params.resamples, seed).columns("jaccard")


def evaluate(
    store: ChipStore,
    manifest: pd.DataFrame,
    runs: dict[str, OutOfFold],
    pseudo: Mapping[str, pd.DataFrame],
    params: EvaluationParams,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge all runs on the clean human labels.

    Args:
        store: the packed chips.
        manifest: `tables.MANIFEST`; only chips with the verdict `clean` are judged on.
        runs: see `load_runs`.
        pseudo: `tables.PSEUDO` of each round.
        params: policies, threshold and resamples; the last policy is the headline.
        seed: of the intervals.

    Returns:
        The metrics (a nested mapping for `metrics.json`) and `tables.COUNTS`. The figures below `given_labels` are of
        all labels, wrong ones included; all others are of the clean ones.
    """
    chips = manifest.merge(store.index[["chip_id", "location", "scene"]].reset_index(drop=True), on="chip_id")
    clean, rejected = (chips[chips["verdict"] == verdict] for verdict in ("clean", "bad"))
    best, more = params.tta[-1], params.final_tta[len(params.tta) :]
    counts = count(runs, params.tta, clean, store.labels, params.threshold)
    given = counts[counts["tta"] == best]
    if more:
        counts = pd.concat([counts, count({FINAL: runs[FINAL]}, more, clean, store.labels, params.threshold)])
    if len(rejected):
        given = pd.concat([given, count(runs, [best], rejected, store.labels, params.threshold)])
    metrics: dict[str, Any] = dict(by_run(counts, best, params, seed))
    metrics["gain_over_baseline"] = gain(counts, best, params, seed)
    metrics["tta"] = {
        policy: jaccard(counts[(counts["run"] == FINAL) & (counts["tta"] == policy)]) for policy in params.final_tta
    }
    metrics["given_labels"] = by_run(given, best, params, seed)
    metrics["labels"] = {str(k): int(v) for k, v in manifest["verdict"].value_counts().items()}
    metrics["pseudo_labels"] = {name: pseudo_figures(table) for name, table in pseudo.items()}
    return metrics, counts.reset_index(drop=True)


def pseudo_figures(table: pd.DataFrame) -> dict[str, int]:
    """Candidates, accepted and churn of a round [pseudo-labels: a chip counts once for each student]."""
    changes = table["change"].value_counts()
    return {
        "candidates": len(table),
        "accepted": int(table["accepted"].sum()),
        **{change: int(changes.get(change, 0)) for change in ("added", "kept", "dropped")},
    }


def write_comparisons(
    counts: pd.DataFrame, final: OutOfFold, params: EvaluationParams, seed: int, paths: Mapping[str, Path | str]
) -> None:
    """Writes the tables of `compare`.

    Args:
        counts: `tables.COUNTS`.
        final: the final run.
        params: policies and resamples.
        seed: of the intervals.
        paths: of `pairs`, `coverage` and `tta`.
    """
    best = params.tta[-1]
    of_final = counts[counts["run"] == FINAL]
    made = {
        "pairs": pairs(choose_models(counts, [], best), params.resamples, seed),
        "coverage": by_coverage(counts[counts["tta"] == best], params, seed),
        "tta": by_tta(of_final, params.final_tta, final.folders, params, seed),
    }
    for name, table in made.items():
        write_text(paths[name], table.to_csv(index=False))


def write_tables(counts: pd.DataFrame, chips: Path | str, locations: Path | str, scenes: Path | str) -> None:
    """Writes the counts per chip, and sums and figures per run, policy and location or scene."""
    tables.COUNTS.write(counts, chips)
    for path, column in ((locations, "location"), (scenes, "scene")):
        parts = [
            by_group(part, column).assign(run=str(run), tta=str(tta))
            for (run, tta), part in counts.groupby(["run", "tta"], sort=False)
        ]
        write_text(path, pd.concat(parts).to_csv(index=False))
