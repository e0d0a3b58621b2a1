"""The audit's networks: one per fold, trained beside each other, kept while all that made them is the same."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cloudcover.config.training import TrainingConfig
from cloudcover.data.store import ChipStore
from cloudcover.models.folder import ModelFolderError, load_card
from cloudcover.runtime.workers import exit_with_parent
from cloudcover.train.run import train, training_fingerprint
from cloudcover.train.split import Split, select


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes that train side by side, the same in both passes because their imports take seconds; None for one."""
    if workers == 1:
        yield None
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
            yield pool


def train_networks(
    store: ChipStore,
    config: TrainingConfig,
    folds: pd.DataFrame,
    rejected: Collection[str],
    work: Path,
    pool: ProcessPoolExecutor | None,
) -> dict[int, Path]:
    """Trains a network per fold on the labels of the other folds.

    Args:
        store: the packed chips.
        config: how the networks are trained.
        folds: `tables.FOLDS`.
        rejected: chips to leave out.
        work: keeps models and training states; what is published there and made of the same is not trained again.
        pool: from `worker_pool`.

    Returns:
        The model folder of each fold, by a network that has not seen the fold.
    """
    verdicts = np.where(folds["chip_id"].isin(set(rejected)), "bad", "clean")
    manifest = pd.DataFrame({"chip_id": folds["chip_id"], "verdict": verdicts})
    models, jobs = {}, []
    for fold in np.unique(folds["fold"]).tolist():
        split = select(manifest, folds, fold)
        identity = training_fingerprint(config, store, split, None)
        models[fold] = work / f"fold{fold}-{identity[:16]}"
        if not _is_published(models[fold], identity):
            jobs.append(_Job(store.root, config, split, models[fold], work, fold))
    for _ in map(_train_fold, jobs) if pool is None else pool.map(_train_fold, jobs):
        pass
    return models


@dataclass(frozen=True)
class _Job:
    store: Path
    config: TrainingConfig
    split: Split
    model: Path
    work: Path
    fold: int


def _start_worker() -> None:
    """Two trainings of one thread each are faster than one of two; their progress goes to the terminal."""
    exit_with_parent()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("cloudcover").setLevel(logging.INFO)


def _train_fold(job: _Job) -> None:
    train(job.config, ChipStore(job.store), job.split, job.model, job.work, run="audit", fold=job.fold)


def _is_published(folder: Path, identity: str) -> bool:
    try:
        return load_card(folder).fingerprint == identity
    except ModelFolderError:
        return False
