"""Evaluation against true masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from sklearn.metrics import average_precision_score

from cloudcover.config.sections import EvaluationParams, Tta
from cloudcover.data import tables
from cloudcover.data.folds import TEST
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.gap import BASELINE, ORACLE, closed_share, replicates
from cloudcover.evaluate.pseudo import JudgedRound
from cloudcover.evaluate.runs import ENSEMBLE, FINAL, JudgedRun, count, judged_chips
from cloudcover.evaluate.summary import by_run, gain
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.masks.pseudo import PseudoLabels
from cloudcover.masks.truth import TrueMasks


def evaluate_truth(
    truth: TrueMasks,
    store: ChipStore,
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
    audit: pd.DataFrame | None,
    runs: Sequence[JudgedRun],
    rounds: Mapping[str, tuple[pd.DataFrame, PseudoLabels]],
    out_of_fold: Mapping[str, OutOfFold],
    tta: Tta,
    params: EvaluationParams,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate the audit, the pseudo-labels and the models against the true masks.

    Args:
        truth: The true masks; without any, nothing is evaluated.
        store: The packed chips.
        manifest: `tables.MANIFEST`.
        folds: `tables.FOLDS`.
        audit: `tables.AUDIT`, or None if the policy does not use the audit.
        runs: Result of `runs.judged_runs`.
        rounds: Labels after each round (`tables.ROUND`) with its pseudo-labels, in order.
        out_of_fold: Predictions of the baseline and the rounds that labels are judged and replaced by.
        tta: Policy of these predictions.
        params: Threshold and number of resamples.
        seed: Random seed for the bootstrap.

    Returns:
        `known` (whether there are true masks). If so, also the figures of each run on the true masks of the test part,
        the gain over the baseline, `closed_gap` (where there is an oracle: gain, gap and the closed share,
        see `gap.closed_share`), `labels` (the first verdicts and the audit, outside the test part), and `rounds`: the
        verdicts and pseudo-labels of each (`pseudo.JudgedRound`). The second result is `tables.COUNTS`.
    """
    if truth.table.empty:
        return {"known": False}, tables.COUNTS.empty()
    known = truth.table.reset_index(drop=True)
    chips = judged_chips(manifest, store.index, folds)
    counts = count(runs, chips[chips["chip_id"].isin(known["chip_id"])], truth.masks)
    before = dict(zip(rounds, [BASELINE, *rounds], strict=False))
    learned = known[known["chip_id"].isin(folds.loc[folds["fold"] != TEST, "chip_id"])]
    figures = {
        "known": True,
        **by_run(counts, params, seed),
        "gain_over_baseline": gain(counts, params, seed),
        "labels": label_figures(learned.merge(manifest, on="chip_id", validate="one_to_one"), audit),
        "rounds": {
            name: {
                **label_figures(learned.merge(table, on="chip_id", validate="one_to_one"), None),
                **JudgedRound(pseudo, out_of_fold[name], out_of_fold[before[name]], tta, truth, store).figures(learned),
            }
            for name, (table, pseudo) in rounds.items()
        },
    }
    if any(run.name == ORACLE for run in runs):
        found = replicates(counts[counts["run"] != ENSEMBLE], resamples=params.resamples, seed=seed)
        figures["closed_gap"] = closed_share(found, FINAL)
    return figures, counts


def label_figures(chips: pd.DataFrame, audit: pd.DataFrame | None) -> dict[str, Any]:
    """Measure how well the wrong labels were found.

    Args:
        chips: chip_id, verdict, label, error (the kind of a wrong label, empty for a right one).
        audit: `tables.AUDIT`, or None.

    Returns:
        Numbers of labels, wrong labels, rejected labels and wrong labels used in training; precision and recall of the
        verdicts (0-1), recall per kind, and the average precision of the suspicion (0-1).
    """
    labelled = chips[chips["verdict"] != "unlabelled"]
    wrong, rejected = labelled["error"] != "", labelled["verdict"] == "bad"
    hits = int((wrong & rejected).sum())
    result: dict[str, Any] = {
        "labels": len(labelled),
        "wrong": int(wrong.sum()),
        "rejected": int(rejected.sum()),
        "wrong_used": int((wrong & (labelled["label"] == "human")).sum()),
        "precision": hits / int(rejected.sum()) if rejected.any() else 1.0,
        "recall": hits / int(wrong.sum()) if wrong.any() else 1.0,
        "recall_by_error": {str(kind): float(part.mean()) for kind, part in rejected[wrong].groupby(labelled["error"])},
    }
    if audit is not None and wrong.any():
        scored = labelled.merge(audit[["chip_id", "suspicion"]], on="chip_id", validate="one_to_one")
        result["average_precision"] = float(average_precision_score(scored["error"] != "", scored["suspicion"]))
    return result
