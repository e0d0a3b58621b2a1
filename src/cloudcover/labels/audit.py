"""The label audit: which labels are probably wrong, and in what way.

Models are trained on all labels, wrong ones included, in scene-disjoint folds. Each chip is judged by a network and by
trees that have not seen its scene, and by evidence that needs no model; `combine` turns the evidence into one
probability. Then all that is suspected is left out, the models are trained again, and every label is judged anew.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.config.sections import AuditParams, FoldsParams
from cloudcover.config.training import TrainingConfig
from cloudcover.data import tables
from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.folds import split
from cloudcover.data.store import ChipStore
from cloudcover.labels.evidence import committee_evidence, confident_levels, model_evidence
from cloudcover.labels.geometry import THUMBNAIL, best_match, geometry_evidence, reduce
from cloudcover.labels.networks import train_networks, worker_pool
from cloudcover.labels.score import estimated_error_share, judge
from cloudcover.labels.spectral import separability, spectral_evidence
from cloudcover.labels.trees import Sample, TreeCommittee, draw
from cloudcover.masks.overlap import iou
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import derive_seed

__all__ = ["AuditError", "audit", "estimated_error_share"]

log = logging.getLogger(__name__)


BATCH = 4
"""Chips that a thread looks at at a time: few stay in the processor's cache."""
CHIPS_FOR_LEVELS = 64
"""Chips per fold from which a model's confident levels are taken."""
TREE_FOLDS = 5
"""Scene-disjoint folds of the trees, where there are as many scenes."""
MOST_REJECTED = 0.5
"""No fold loses more than this share of its labels between the passes."""


class AuditError(ValueError):
    """The labels cannot be audited; the message says what to change."""


def audit(store: ChipStore, config: TrainingConfig, params: AuditParams, work: Path, workers: int = 1) -> pd.DataFrame:
    """Judges every label of the store.

    Args:
        store: the packed chips.
        config: how the audit's models are trained; `params` overrides epochs and folds, and each has one device,
            because a worker process cannot start the others.
        params: folds and epochs of the networks.
        work: keeps models and training states; an interrupted audit goes on from there.
        workers: trainings side by side, each with one thread; 1 trains them in turn in this process.

    Returns:
        `tables.AUDIT`, a row per labelled chip, sorted by chip: `suspicion`, probability that the label is wrong;
        `reasons`, the kinds of error it looks like, strongest first; `audit_fold`; a column per piece of evidence,
        the mean of both passes.

    Raises:
        AuditError: there are no labels, or fewer scenes than folds.
    """
    index = store.index[store.index["labelled"]]
    folds = _folds(index, config, params.folds).reset_index(drop=True)
    trees = _folds(index, config, max(params.folds, min(TREE_FOLDS, index["scene"].nunique())))
    trees = trees.set_index("chip_id").loc[folds["chip_id"]]
    config = replace(
        config,
        training=config.training.model_copy(update={"epochs": params.epochs}),
        folds=config.folds.model_copy(update={"number": params.folds}),
        compute=config.compute.model_copy(update={"devices": 1}),
    )
    sample = draw(store, folds["chip_id"].tolist(), config.data.nodata, config.seed)
    task = _Task(store, config, folds, trees["fold"].to_numpy(), sample, work)
    colours = _colours(task)
    with worker_pool(min(workers, params.folds)) as pool:
        evidence = _pass(task, set(), pool)
        rejected = _suspects(judge(evidence.merge(colours, on="chip_id", validate="one_to_one")))
        if rejected:
            log.info("the audit learns again without the %d of %d labels that it suspects", len(rejected), len(folds))
            evidence = _mean(evidence, _pass(task, rejected, pool))
    table = judge(evidence.merge(colours, on="chip_id", validate="one_to_one"))
    log.info(
        "the audit suspects %d of %d labels; estimated share of wrong labels %.1f %%",
        int((table["suspicion"] > 0.5).sum()), len(table), 100 * estimated_error_share(table),
    )  # fmt: skip
    return tables.AUDIT.check(table, "audit")


def _mean(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Means of the two passes, which are steadier than the second alone: each pass has another draw of models."""
    figures = [c for c in first.columns if c not in ("chip_id", "audit_fold")]
    means = (first[figures].astype(float) + second[figures].astype(float)) / 2
    return first.assign(**{c: means[c] for c in figures})


def _suspects(table: pd.DataFrame) -> set[str]:
    """Labels that are wrong more likely than not, the most suspicious first where they are too many for their fold."""
    ranks = table.groupby("audit_fold")["suspicion"].rank(ascending=False, method="first", pct=True)
    return set(table.loc[(table["suspicion"] > 0.5) & (ranks <= MOST_REJECTED), "chip_id"])


def _folds(index: pd.DataFrame, config: TrainingConfig, number: int) -> pd.DataFrame:
    """Folds of whole scenes, or of what `folds.group` allows if there are too few scenes."""
    if index.empty:
        raise AuditError("no chip has a label: there is nothing to audit; set labels.policy to human")
    scenes = index["scene"].nunique()
    group = "scene" if scenes >= number else config.folds.group
    if group != "none" and scenes < number:
        raise AuditError(
            f"{number} folds of the audit need as many scenes, but the labels are of {scenes}: "
            "lower audit.folds, or set folds.group to none"
        )
    chips = index[["chip_id", "location", "datetime"]].assign(coverage_share=index["label_coverage_share"])
    wanted = FoldsParams.model_validate({**config.folds.model_dump(), "number": number, "group": group})
    return split(chips.reset_index(drop=True), wanted, derive_seed(config.seed, "audit"))


@dataclass(frozen=True)
class _Task:
    """What both passes share: `folds` of the networks in the order of chips, `tree_folds` of the trees."""

    store: ChipStore
    config: TrainingConfig
    folds: pd.DataFrame
    tree_folds: NDArray[np.int64]
    sample: Sample
    work: Path


def _pass(task: _Task, rejected: Collection[str], pool: ProcessPoolExecutor | None) -> pd.DataFrame:
    """One pass: evidence about every label by models that learn from all but the rejected ones."""
    models = train_networks(task.store, task.config, task.folds, rejected, task.work, pool)
    learn = ~task.folds["chip_id"].isin(set(rejected)).to_numpy()
    opinion = TreeCommittee(task.sample, task.tree_folds, learn, task.config.seed)
    return _evidence(task, models, opinion)


def _colours(task: _Task) -> pd.DataFrame:
    """Evidence that needs no model, a row per chip."""
    store, bands, nodata = task.store, task.store.bands(), task.config.data.nodata

    def look(chip_ids: list[str]) -> pd.DataFrame:
        dn, labels = store.chips(chip_ids), store.labels(chip_ids)
        labels[(dn == nodata).any(axis=1)] = IGNORE_INDEX
        columns = spectral_evidence(dn, labels, bands, nodata)
        return pd.DataFrame({"chip_id": chip_ids, **columns, "label_separability_auc": separability(dn, labels)})

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return pd.concat(threads.map(look, store.batches(task.folds["chip_id"], BATCH)), ignore_index=True)


def _evidence(task: _Task, models: dict[int, Path], opinion: TreeCommittee) -> pd.DataFrame:
    """Evidence by the models, a row per chip; memory holds a batch of chips per thread and a thumbnail of each chip."""
    folds, compute = task.folds, task.config.compute
    parts, labels_small, predictions_small = [], [], []
    bar = tqdm(total=len(folds), desc="audit", unit="chip", disable=None)
    with bar, ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for fold in np.unique(folds["fold"]).tolist():
            chips = folds.index[folds["fold"] == fold].to_numpy()
            network = Predictor([models[fold]], "flips", compute.device, compute.precision, compute.prediction_batch)
            committee = _Committee(task, network, opinion)
            batches = [chips[start : start + BATCH] for start in range(0, len(chips), BATCH)]
            for part, label, prediction in threads.map(
                partial(committee.judge, levels=committee.levels(chips)), batches
            ):
                parts.append(part.assign(audit_fold=fold))
                labels_small.append(label)
                predictions_small.append(prediction)
                bar.update(len(part))
    evidence = pd.concat(parts, ignore_index=True)
    own, other, _ = best_match(np.concatenate(labels_small), np.concatenate(predictions_small))
    evidence["own_correlation"], evidence["other_correlation"] = own, other
    return evidence.sort_values("chip_id", ignore_index=True)


class _Committee:
    """The models of a fold: the network and the trees that have not seen its scenes decide, with equal weight.

    They err in different ways: trees know colours and close surroundings, the network shapes.
    """

    def __init__(self, task: _Task, network: Predictor, opinion: TreeCommittee) -> None:
        self.store, self.network, self.opinion = task.store, network, opinion
        self.chip_ids = task.folds["chip_id"].to_numpy()
        self.bands, self.nodata = self.store.bands(), task.config.data.nodata

    def _look(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Labels (pixels without data unknown) and the views of network, trees and neighbours' trees."""
        chip_ids = self.chip_ids[rows].tolist()
        dn, labels = self.store.chips(chip_ids), self.store.labels(chip_ids)
        labels[(dn == self.nodata).any(axis=1)] = IGNORE_INDEX
        seen = self.network.probabilities(dn, self.store.percentiles(chip_ids))
        return labels, np.concatenate([seen[None], self.opinion.views(dn, self.bands, rows)])

    def levels(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Confident levels, from chips spread evenly over those that were not seen."""
        labels, views = self._look(rows[:: -(-len(rows) // CHIPS_FOR_LEVELS)])
        return confident_levels(views[:2].mean(axis=0), labels)

    def judge(
        self, rows: NDArray[np.int64], levels: tuple[float, float]
    ) -> tuple[pd.DataFrame, NDArray[np.float32], NDArray[np.float32]]:
        """Evidence of each chip, and thumbnails of labels and predictions."""
        labels, views = self._look(rows)
        probabilities = views[:2].mean(axis=0)
        known = labels != IGNORE_INDEX
        columns = {
            "early_agreement": self.opinion.early_agreement[rows],
            **model_evidence(probabilities, labels, levels),
            **committee_evidence(views, labels),
            "network_iou": iou((views[0] > 0.5) & known, labels == 1),
            "neighbour_iou": iou((views[2] > 0.5) & known, labels == 1),
            **geometry_evidence(probabilities, labels),
        }
        frame = pd.DataFrame({"chip_id": self.chip_ids[rows], **columns})
        return frame, reduce(labels == 1, THUMBNAIL), reduce(probabilities, THUMBNAIL)
