"""Clouds drawn by formula with labels and models of known quality, and a small synthetic set, for tests of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.labels.disagreement import committee_evidence, model_evidence
from cloudcover.labels.geometry import best_match, geometry_evidence, reduce
from cloudcover.labels.scenes import scene_evidence
from cloudcover.labels.spectral import separability, spectral_evidence
from cloudcover.masks.overlap import iou
from cloudcover.sources.fetch import fetch

BANDS = ["B02", "B03", "B04", "B08"]
SIZE = 128
LEVELS = (0.8, 0.8)
Gathered = tuple[pd.DataFrame, np.ndarray]
"""What `gather_evidence` returns: the evidence, and the votes of the trees."""


def clouds(number: int, seed: int = 0, level: float = 0.0) -> np.ndarray:
    """N x SIZE x SIZE bool: rough outlines, about half cloud at level 0."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(number, SIZE, SIZE)), (0, 8, 8), mode="wrap")
    rough = ndimage.gaussian_filter(rng.normal(size=(number, SIZE, SIZE)), (0, 2, 2), mode="wrap")
    return fields / fields.std() + 0.4 * rough / rough.std() > level


def seen(masks: np.ndarray, sure: float = 0.95) -> np.ndarray:
    """Probabilities of a model that sees these masks, and doubts their outline."""
    soft = ndimage.gaussian_filter(masks.astype(np.float32), (0, 1.5, 1.5), mode="nearest")
    certain = np.where(masks, np.maximum(soft, 0.51), np.minimum(soft, 0.49))
    return (1 - sure + (2 * sure - 1) * certain).astype(np.float32)


def pixels(masks: np.ndarray, seed: int = 0) -> np.ndarray:
    """N x 4 x SIZE x SIZE uint16: white cloud over green land."""
    rng = np.random.default_rng(seed)
    land = np.array([400, 600, 400, 3500])[None, :, None, None]
    cloud = np.array([5000, 5000, 5100, 5300])[None, :, None, None]
    noise = rng.normal(1, 0.1, (len(masks), 1, SIZE, SIZE))
    return (np.where(masks[:, None], cloud, land) * noise).astype(np.uint16)


def outlined(masks: np.ndarray, width: int = 2) -> np.ndarray:
    """Labels as people draw them: a little outside the cloud."""
    return ndimage.binary_dilation(masks, ndimage.generate_binary_structure(3, 1)[1:2], iterations=width)


def drawn(masks: np.ndarray) -> np.ndarray:
    """Labels of several people, some of whom draw closer to the cloud than others."""
    return np.concatenate([outlined(mask[None], 1 + i % 3) for i, mask in enumerate(masks)])


def evidence_of(
    truth: np.ndarray, labels: np.ndarray, view: np.ndarray | None = None, scenes: pd.Series | None = None
) -> pd.DataFrame:
    """The audit's evidence where the models see the truth, or another view; by default each chip is a scene."""
    labels = labels.astype(np.uint8)
    view = truth if view is None else view
    probabilities, dn = seen(view), pixels(truth)
    own, other, _ = best_match(reduce(labels == 1, 16), reduce(probabilities, 16))
    table = pd.DataFrame(
        {
            **model_evidence(probabilities, labels, LEVELS),
            **committee_evidence(np.stack([probabilities] * 3), labels),
            "neighbour_iou": iou(view, labels == 1),
            "early_agreement": np.where(view == (labels == 1), 0.9, 0.1).mean(axis=(1, 2)),
            **geometry_evidence(probabilities, labels),
            **spectral_evidence(dn, labels, BANDS),
            "label_separability_auc": separability(dn, labels),
            "own_correlation": own,
            "other_correlation": other,
        }
    )
    return table.assign(**scene_evidence(table, table.index.to_series() if scenes is None else scenes))


def small_set(folder: Path) -> ChipStore:
    """Make and pack 60 synthetic chips of 64 pixels in `folder`, some without a label."""
    data = DataParams(chip_size=64)
    synthetic = SyntheticParams(locations=5, scenes=8, chips=60, unlabelled=0.05, label_errors=0.2)
    fetch(data, synthetic, 0, folder / "raw", folder / "truth")
    pack(folder / "raw", folder / "store", folder / "quarantine.csv", data)
    return ChipStore(folder / "store")


def folds_of(store: ChipStore, number: int = 3, test_scenes: int = 0) -> pd.DataFrame:
    """`tables.FOLDS` of whole scenes, the first ones in the test part."""
    scenes = {scene: i for i, scene in enumerate(sorted(store.index["scene"].unique()))}
    place = store.index["scene"].map(scenes)
    fold = (place % number).where(place >= test_scenes, -1)
    return tables.FOLDS.check(store.index[["chip_id", "scene"]].assign(fold=fold), "test")
