"""The figures of all runs on chips that no model has seen, measured against the given labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cloudcover.config.sections import EvaluationParams, PredictionParams
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.compare import by_coverage, by_tta, choose_models, pairs
from cloudcover.evaluate.gap import BASELINE
from cloudcover.evaluate.metrics import bootstrap, by_group, jaccard, location_mean, paired_bootstrap
from cloudcover.evaluate.runs import ENSEMBLE, FINAL, JudgedRun, count, judged_chips
from cloudcover.runtime.files import write_text


def figures(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> dict[str, float]:
    """Compute global Jaccard with its 95 % interval by location, location mean, precision, recall, accuracy (0-1)."""
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


def by_run(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> dict[str, dict[str, float]]:
    """Compute `figures` for each run."""
    chosen = counts[counts["run"] != ENSEMBLE]
    return {str(run): figures(part, params, seed) for run, part in chosen.groupby("run", sort=False)}


def gain(counts: pd.DataFrame, params: EvaluationParams, seed: int) -> dict[str, float]:
    """Compute the final model's gain in global Jaccard over the baseline, with its paired 95 % interval by location."""
    final, baseline = (counts[counts["run"] == run] for run in (FINAL, BASELINE))
    return paired_bootstrap(final, baseline, "location", params.resamples, seed).columns("jaccard")


def evaluate(
    store: ChipStore,
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
    runs: Sequence[JudgedRun],
    rounds: Mapping[str, pd.DataFrame],
    params: EvaluationParams,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate all runs against the given labels of the test part, or of all chips if there is none.

    Args:
        store: The packed chips.
        manifest: `tables.MANIFEST`; labels with the verdict `bad` are ignored. In the test part only people give it.
        folds: `tables.FOLDS`.
        runs: Result of `runs.judged_runs`.
        rounds: `tables.ROUND` of each round.
        params: Threshold and number of resamples.
        seed: Random seed for the bootstrap.

    Returns:
        The metrics (a nested mapping for `metrics.json`) and `tables.COUNTS`.
    """
    chips = judged_chips(manifest, store.index, folds)
    counts = count(runs, chips[chips["verdict"] == "clean"], store.labels)
    compared = counts[counts["run"] == ENSEMBLE]
    metrics: dict[str, Any] = dict(by_run(counts, params, seed))
    metrics["gain_over_baseline"] = gain(counts, params, seed)
    metrics["tta"] = {str(tta): jaccard(part) for tta, part in compared.groupby("tta", sort=False)}
    metrics["test_chips"] = int((folds["fold"] == TEST).sum())
    metrics["labels"] = {str(k): int(v) for k, v in manifest["verdict"].value_counts().items()}
    metrics["rounds"] = {name: round_figures(table) for name, table in rounds.items()}
    return metrics, counts


def round_figures(table: pd.DataFrame) -> dict[str, float]:
    """Count what the next round learns from: given labels, rejected ones, pseudo-labels and their churn [chips].

    `accepted_share` is the accepted share of the candidates (0-1), and 0 without candidates.
    """
    changes = table["change"].value_counts()
    return {
        "given": int((table["label"] == "human").sum()),
        "rejected": int((table["verdict"] == "bad").sum()),
        "candidates": int((table["row"] >= 0).sum()),
        "accepted": (accepted := int((table["label"] == "pseudo").sum())),
        "accepted_share": accepted / max(1, int((table["row"] >= 0).sum())),
        **{change: int(changes.get(change, 0)) for change in ("added", "kept", "dropped")},
    }


def write_comparisons(
    counts: pd.DataFrame,
    members: Sequence[Path],
    prediction: PredictionParams,
    params: EvaluationParams,
    seed: int,
    paths: Mapping[str, Path | str],
) -> None:
    """Write the tables of `compare`.

    Args:
        counts: `tables.COUNTS`.
        members: Folders of the final models' predictions, with their times.
        prediction: TTA policies.
        params: Number of resamples.
        seed: Random seed for the bootstrap.
        paths: Paths of the tables `pairs`, `coverage` and `tta`.
    """
    runs = counts[counts["run"] != ENSEMBLE]
    made = {
        "pairs": pairs(choose_models(runs, [], prediction.tta), params.resamples, seed),
        "coverage": by_coverage(runs, params, seed),
        "tta": by_tta(counts[counts["run"] == ENSEMBLE], prediction.final_tta, members, params, seed),
    }
    for name, table in made.items():
        write_text(paths[name], table.to_csv(index=False))


def write_tables(counts: pd.DataFrame, chips: Path | str, locations: Path | str, scenes: Path | str) -> None:
    """Write the counts per chip, and sums and figures per run, policy and location or scene."""
    tables.COUNTS.write(counts, chips)
    for path, column in ((locations, "location"), (scenes, "scene")):
        parts = [
            by_group(part, column).assign(run=str(run), tta=str(tta))
            for (run, tta), part in counts.groupby(["run", "tta"], sort=False)
        ]
        write_text(path, pd.concat(parts).to_csv(index=False))
