"""Evidence about labels that needs no network: the colours of their chips, and the votes of boosted trees.

It depends only on the packed chips. `audit.judge_labels` adds the evidence from out-of-fold probabilities.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from tqdm import tqdm

from cloudcover.data import tables
from cloudcover.data.store import ChipStore
from cloudcover.labels.geometry import BATCH
from cloudcover.labels.spectral import separability, spectral_evidence
from cloudcover.labels.trees import TreeCommittee, draw, one_core_each
from cloudcover.masks.codec import encode_predictions

TREE_FOLDS = 5
"""Number of scene-disjoint folds of the trees, if there are enough scenes."""


class EvidenceError(ValueError):
    """Labels that there is no evidence about; the message says what to change."""


def gather_evidence(
    store: ChipStore, folds: pd.DataFrame, seed: int, threads: int = 1
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Gather the evidence about every label outside the test part.

    Memory use is a bounded sample of cells (see `trees`), a few chips per thread, and the votes.

    Args:
        store: The packed chips.
        folds: `tables.FOLDS`. A negative fold marks the test part, whose labels are neither judged nor learned from.
        seed: Random seed for the trees.
        threads: Number of threads that process chips. The result does not depend on it.

    Returns:
        `tables.EVIDENCE`, sorted by chip, and N x 2 x S x S uint8, the trees' probabilities of cloud per cell, encoded
        by `masks.codec`, in the rows named by the table. The first come from trees that have not seen the chip's scene,
        the second from trees that have seen other chips of it.

    Raises:
        EvidenceError: No chip has a label, or all labels belong to one scene.
    """
    chip_ids = _labelled(store, folds)
    tree_folds = _scene_folds(store.index.loc[chip_ids, "scene"])
    batches = [np.arange(i, min(i + BATCH, len(chip_ids))) for i in range(0, len(chip_ids), BATCH)]
    with one_core_each(threads) as pool:
        committee = TreeCommittee(draw(store, chip_ids, seed), tree_folds, seed, pool)
        look = partial(_look, store, chip_ids, committee)
        found = tqdm(pool.map(look, batches), total=len(batches), desc="evidence", unit="batch", disable=None)
        parts, votes = zip(*found, strict=True)
    table = pd.concat(parts, ignore_index=True).assign(
        row=range(len(chip_ids)), tree_fold=tree_folds, early_agreement=committee.early_agreement
    )
    return tables.EVIDENCE.check(table, "evidence"), np.concatenate(votes)


def _look(
    store: ChipStore, chip_ids: list[str], committee: TreeCommittee, rows: NDArray[np.int64]
) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
    """Describe the colours of some chips, and let the trees vote on them."""
    batch, bands = [chip_ids[row] for row in rows], store.bands()
    dn, labels = store.chips(batch), store.labels(batch)
    colours = {**spectral_evidence(dn, labels, bands), "label_separability_auc": separability(dn, labels)}
    return pd.DataFrame({"chip_id": batch, **colours}), encode_predictions(committee.votes(dn, bands, rows))


def _labelled(store: ChipStore, folds: pd.DataFrame) -> list[str]:
    """List labelled chips outside the test part, sorted."""
    inside = set(folds.loc[folds["fold"] >= 0, "chip_id"])
    chip_ids = [c for c in store.index.index[store.index["labelled"]] if c in inside]
    if not chip_ids:
        raise EvidenceError(
            f"none of the {len(inside)} chips outside the test part has a label, so there is nothing to audit; "
            "set labels.policy to human"
        )
    return sorted(chip_ids)


def _scene_folds(scenes: pd.Series) -> NDArray[np.int64]:
    """Assign each chip to a fold of whole scenes."""
    number = scenes.nunique()
    if number < 2:
        raise EvidenceError(
            f"all {len(scenes)} labels are of the scene {scenes.iloc[0]}, but a label is judged by models that have "
            "not seen its scene; add labels of another scene, or set labels.policy to human"
        )
    folds = np.empty(len(scenes), np.int64)
    for fold, (_, rows) in enumerate(GroupKFold(min(TREE_FOLDS, number)).split(scenes, groups=scenes)):
        folds[rows] = fold
    return folds
