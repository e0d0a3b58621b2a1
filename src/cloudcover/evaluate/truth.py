"""Figures against true masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from cloudcover.config.sections import EvaluationParams
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.gap import ORACLE, closed_gap
from cloudcover.evaluate.runs import BATCH, count
from cloudcover.evaluate.summary import FINAL, by_run, gain
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.overlap import confusion, jaccard_index
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks


def evaluate_truth(
    truth: TrueMasks,
    store: ChipStore,
    manifest: pd.DataFrame,
    audit: pd.DataFrame | None,
    runs: dict[str, OutOfFold],
    pseudo: Mapping[str, Mapping[int, PseudoLabels]],
    params: EvaluationParams,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Judge the audit, the pseudo-labels and the models against the true masks.

    Args:
        truth: the true masks; without any, nothing is judged.
        store: the packed chips.
        manifest: `tables.MANIFEST`.
        audit: `tables.AUDIT`, or None where the policy asks no audit.
        runs: see `summary.load_runs`.
        pseudo: pseudo-labels of each round, by student.
        params: policies, threshold and resamples.
        seed: of the intervals.

    Returns:
        `known` (whether there is any truth); if so, also the figures of each run on all true masks, the gain over the
        baseline, `closed_gap` (the share of the oracle's gain that is that, with its 95 % interval, where there is an
        oracle), `labels` (the manifest's and the audit's), and `pseudo_labels` per round. Beside it `tables.COUNTS`.
    """
    if truth.table.empty:
        return {"known": False}, tables.COUNTS.empty()
    chips = manifest.merge(truth.table.reset_index(drop=True), on="chip_id", validate="one_to_one")
    chips = chips.merge(store.index[["chip_id", "location", "scene"]].reset_index(drop=True), on="chip_id")
    counts = count(runs, params.tta, chips, truth.masks, params.threshold)
    best = params.tta[-1]
    figures = {
        "known": True,
        **by_run(counts, best, params, seed),
        "gain_over_baseline": gain(counts, best, params, seed),
        "labels": label_figures(chips, audit),
        "pseudo_labels": {name: _pseudo_figures(made, chips, truth, store) for name, made in pseudo.items()},
    }
    if ORACLE in runs:
        shares = closed_gap(counts[counts["tta"] == best], params.resamples, seed)
        final = shares[shares["run"] == FINAL].filter(like="closed_share")
        figures["closed_gap"] = {str(name): float(value) for name, value in final.iloc[0].items()}
    return figures, counts


def label_figures(chips: pd.DataFrame, audit: pd.DataFrame | None) -> dict[str, Any]:
    """How well the wrong labels were found.

    Args:
        chips: chip_id, verdict, error (the kind of a wrong label, empty for a right one).
        audit: `tables.AUDIT`, or None.

    Returns:
        Numbers of labels, precision and recall of the verdicts (0-1), recall per kind, and the average precision of the
        suspicion (0-1).
    """
    labelled = chips[chips["verdict"] != "unlabelled"]
    wrong, rejected = labelled["error"] != "", labelled["verdict"] == "bad"
    hits = int((wrong & rejected).sum())
    result: dict[str, Any] = {
        "labels": len(labelled),
        "wrong": int(wrong.sum()),
        "rejected": int(rejected.sum()),
        "precision": hits / int(rejected.sum()) if rejected.any() else 1.0,
        "recall": hits / int(wrong.sum()) if wrong.any() else 1.0,
        "recall_by_error": {str(kind): float(part.mean()) for kind, part in rejected[wrong].groupby(labelled["error"])},
    }
    if audit is not None and wrong.any():
        scored = labelled.merge(audit[["chip_id", "suspicion"]], on="chip_id", validate="one_to_one")
        result["average_precision"] = float(average_precision_score(scored["error"] != "", scored["suspicion"]))
    return result


def _pseudo_figures(
    students: Mapping[int, PseudoLabels], chips: pd.DataFrame, truth: TrueMasks, store: ChipStore
) -> dict[str, float]:
    """Global Jaccard of accepted pseudo-labels and of the labels that they replace, and the replaced share.

    In the former a chip counts once for each student; in the latter a wrong label counts by the share of its students
    who got another one.
    """
    table = pd.concat([tables.PSEUDO.empty(), *(pseudo.table for pseudo in students.values())], ignore_index=True)
    wrong = chips.loc[(chips["error"] != "") & (chips["verdict"] != "unlabelled"), "chip_id"]
    made, given = np.zeros(4, np.int64), np.zeros(4, np.int64)
    for pseudo in students.values():
        for batch in store.batches(pseudo.table.loc[pseudo.table["accepted"], "chip_id"], BATCH):
            true = truth.masks(batch)
            for sums, labels in ((made, pseudo.masks(batch)), (given, store.labels(batch))):
                where_labelled = np.where(labels == IGNORE_INDEX, IGNORE_INDEX, true).astype(np.uint8)
                sums += confusion((labels == 1), where_labelled).sum(axis=0)
    replaced = table.groupby("chip_id")["accepted"].mean().reindex(wrong, fill_value=0.0)
    figures = {
        "accepted": float(table["accepted"].sum()),
        "replaced_share": float(replaced.mean()) if len(wrong) else 0.0,
    }
    if table["accepted"].any():
        figures |= {"jaccard": float(jaccard_index(made)), "jaccard_given": float(jaccard_index(given))}
    figures["union_pixels"] = float(made[:3].sum())  # to pool the Jaccard of several sets
    return figures
