"""The label audit: which labels are probably wrong, and in what way.

Like cleanlab's `find_label_issues`, the audit is a function of labels and out-of-fold probabilities and trains no
network. The probabilities may come from any model that has not seen the chip's scene. They are combined with evidence
that needs no network (`evidence.gather_evidence`), and `score` turns everything into one probability per label.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore
from cloudcover.labels.disagreement import committee_evidence, confident_levels, model_evidence
from cloudcover.labels.geometry import BATCH, THUMBNAIL, best_match, enlarge, geometry_evidence, reduce
from cloudcover.labels.scenes import scene_evidence
from cloudcover.labels.score import error_share_text, estimated_error_share, is_determined, score_labels
from cloudcover.masks.codec import decode_predictions
from cloudcover.masks.overlap import iou
from cloudcover.runtime.text import listed

Probabilities = Callable[[Sequence[str]], NDArray[np.float32]]
"""Function from chip ids to N x H x W float32 in [0, 1], the probability of cloud by models that have not seen the
chips' scenes."""

log = logging.getLogger(__name__)

CHIPS_FOR_LEVELS = 64
"""Number of chips per fold that determine a model's confident levels."""


class AuditError(ValueError):
    """Inputs that the audit cannot use; the message says what to change."""


def judge_labels(
    store: ChipStore,
    evidence: pd.DataFrame,
    tree_votes: NDArray[np.uint8],
    probabilities: Probabilities,
    folds: pd.DataFrame,
    *,
    threads: int = 1,
    previous: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Judge every label that there is evidence about.

    Memory use is a few chips per thread and two thumbnails of each chip.

    Args:
        store: The packed chips.
        evidence: `tables.EVIDENCE`, from `evidence.gather_evidence`.
        tree_votes: Array that belongs to the evidence; may be memory-mapped.
        probabilities: Out-of-fold probabilities, such as `partial(OutOfFold([folder]).probabilities, policy="vflip")`.
            Called from several threads at once.
        folds: `tables.FOLDS` that the probabilities are out of fold for: the chips of a fold share a model.
        threads: Number of threads that process chips. The result does not depend on it.
        previous: `tables.AUDIT` of an earlier judgement by other models, if there is one. The figures of both are
            averaged, which reduces the variance because the models are independent draws.

    Returns:
        `tables.AUDIT`, one row per label, sorted by chip: `suspicion`, the probability that the label is wrong;
        `reasons`, the kinds of error that it resembles, strongest first; `fold`; and one column per piece of evidence.

    Raises:
        AuditError: The inputs do not describe the same chips.
    """
    evidence = evidence.sort_values("chip_id", ignore_index=True)
    fold = _folds_of(evidence, folds)
    if len(evidence) and evidence["row"].max() >= len(tree_votes):
        raise AuditError(
            f"the evidence names row {evidence['row'].max()} of the tree votes, which have {len(tree_votes)}; "
            "gather the evidence again"
        )
    view = _View(store, evidence, tree_votes, probabilities)
    with ThreadPoolExecutor(threads) as pool:
        found = tqdm(_look(view, fold, pool), total=len(evidence), desc="audit", unit="chip", disable=None)
        rows, figures, labels_small, predictions_small = zip(*found, strict=True)
    own, other, _ = best_match(np.stack(labels_small), np.stack(predictions_small))
    by_model = pd.DataFrame(figures).assign(own_correlation=own, other_correlation=other)
    by_model = by_model.set_axis(pd.Index(rows)).sort_index()
    table = pd.concat([evidence.drop(columns="row").assign(fold=fold), by_model], axis=1)
    if previous is not None:
        table = _mean(table, previous)
    scenes = store.index.loc[table["chip_id"], "scene"]
    table = score_labels(table.assign(**scene_evidence(table, scenes)))
    _report(table)
    return tables.AUDIT.check(table, "audit")


@dataclass(frozen=True)
class _View:
    """The chips as seen by the models and the trees."""

    store: ChipStore
    evidence: pd.DataFrame
    tree_votes: NDArray[np.uint8]
    probabilities: Probabilities

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read labels, N x H x W, and the views of model, trees and neighbours' trees, 3 x N x H x W."""
        chips = self.evidence.iloc[rows]
        chip_ids = chips["chip_id"].tolist()
        labels, model = self.store.labels(chip_ids), self.probabilities(chip_ids)
        if model.shape != labels.shape:
            raise AuditError(f"the probabilities have the shape {model.shape}, but the labels {labels.shape}")
        cells = decode_predictions(self.tree_votes[chips["row"].to_numpy()])
        return labels, np.stack([model, *(enlarge(cells[:, k], labels.shape[1]) for k in (0, 1))])

    def levels(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Compute the confident levels of a fold's model and trees, from chips spread evenly over the fold."""
        chosen = rows[:: -(-len(rows) // CHIPS_FOR_LEVELS)]
        parts = [self.read(chosen[i : i + BATCH]) for i in range(0, len(chosen), BATCH)]
        labels = np.concatenate([labels for labels, _ in parts])
        return confident_levels(np.concatenate([views[:2].mean(axis=0) for _, views in parts]), labels)


Judged = tuple[int, dict[Hashable, float], NDArray[np.float32], NDArray[np.float32]]
"""Row of a chip in the evidence, its figures, and thumbnails of its label and its prediction."""


def _look(view: _View, fold: NDArray[np.int64], pool: ThreadPoolExecutor) -> Iterator[Judged]:
    """Process all chips, fold by fold."""
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        levels = view.levels(rows)
        batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        for judged in pool.map(lambda batch, levels=levels: _figures(view, batch, levels), batches):
            yield from judged


def _figures(view: _View, rows: NDArray[np.int64], levels: tuple[float, float]) -> list[Judged]:
    """Compare labels and views. Model and trees decide with equal weight, because they err in different ways.

    Trees know colours and the immediate surroundings; a network knows shapes.
    """
    labels, views = view.read(rows)
    probabilities = views[:2].mean(axis=0)
    known, label = labels != IGNORE_INDEX, labels == 1
    columns = {
        **model_evidence(probabilities, labels, levels),
        **committee_evidence(views, labels),
        "model_iou": iou((views[0] > 0.5) & known, label),
        "neighbour_iou": iou((views[2] > 0.5) & known, label),
        **geometry_evidence(probabilities, labels),
    }
    figures = pd.DataFrame(columns).to_dict("records")
    thumbnails = reduce(label, THUMBNAIL), reduce(probabilities, THUMBNAIL)
    return list(zip(rows.tolist(), figures, *thumbnails, strict=True))


def _folds_of(evidence: pd.DataFrame, folds: pd.DataFrame) -> NDArray[np.int64]:
    """Look up the fold of each chip, in the order of the evidence."""
    fold = evidence["chip_id"].map(folds.set_index("chip_id")["fold"])
    outside = evidence.loc[~(fold >= 0), "chip_id"]
    if len(outside):
        raise AuditError(
            f"{len(outside)} chips of the evidence are in no fold or in the test part "
            f"({listed(outside)}); gather the evidence again"
        )
    return fold.to_numpy(np.int64)


def _mean(table: pd.DataFrame, previous: pd.DataFrame) -> pd.DataFrame:
    """Average the figures with those of an earlier judgement."""
    before = previous.set_index("chip_id").reindex(table["chip_id"])
    missing = before.index[before["suspicion"].isna()]
    if len(missing):
        raise AuditError(
            f"the previous audit lacks {len(missing)} chips ({listed(missing)}); run it again on these labels"
        )
    figures = [c for c in table.columns.astype(str) if c not in ("chip_id", "fold", "tree_fold")]
    unknown = [c for c in figures if c not in before]
    if unknown:
        raise AuditError(f"the previous audit lacks the columns {listed(unknown)}; run it again with this version")
    # In a CSV, columns beyond the schema are text, empty where there is no figure.
    numbers = before[figures].replace("", None).astype(np.float64).to_numpy()
    return table.assign(**dict(zip(figures, (table[figures].to_numpy(np.float64) + numbers).T / 2, strict=True)))


def _report(table: pd.DataFrame) -> None:
    """Log how many labels are suspected, and whether the estimated share is meaningful."""
    suspected = int((table["suspicion"] > 0.5).sum())
    log.info(
        "the audit suspects %d of %d labels; estimated share of wrong labels: %s",
        suspected, len(table), error_share_text(table),
    )  # fmt: skip
    if not is_determined(estimated_error_share(table)):
        log.warning(
            "the share of wrong labels is not determined: either hardly any label is wrong, or labels are wrong in a "
            "way that the audit cannot detect. The suspicions still rank the labels; check the first 50 with "
            "`cloudcover review`"
        )
