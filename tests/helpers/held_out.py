"""Held-out predictions of members whose quality is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from cloudcover.evaluate.calibrate.held_out import HeldOut, groups_of


def held_out(
    probabilities: np.ndarray, labels: np.ndarray, locations: list[str] | None = None, groups: int = 5
) -> HeldOut:
    """Of members x N x H x W probabilities in [0, 1]; by default ten locations, and folds that take turns."""
    count = len(labels)
    where = pd.Series(locations or [f"place{i % 10}" for i in range(count)])
    chips = pd.DataFrame(
        {"chip_id": [f"c{i:03d}" for i in range(count)], "location": where, "scene": where + "@1", "verdict": "clean"}
    )
    chips["fold"] = (where.rank(method="dense").astype(int) % 2).to_numpy()
    chips["group"] = groups_of(chips["location"], groups)
    names = [f"m{i}" for i in range(len(probabilities))]
    return HeldOut(chips, names, np.rint(probabilities * 255).astype(np.uint8), labels.astype(np.uint8), 2)


def clouds(chips: int, size: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth logits of cloud: chips x size x size, standard deviation 3."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((chips, size, size)), (0, 3, 3))
    return 3 * field / field.std()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
