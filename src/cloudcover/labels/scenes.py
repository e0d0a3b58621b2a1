"""Evidence from other labels of a scene, because a strict annotator or a swapped mask file affects all of them.

Four scenes of the challenge's 92 hold a quarter of the labels that at least two of four reviewers reject.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNSEEN_LABELS = 2
"""Number of error-free labels added to every scene, because a scene with few chips provides little evidence."""


def scene_evidence(audit: pd.DataFrame, scenes: pd.Series) -> dict[str, Floats]:
    """Average the evidence against the other labels of each label's scene, shrunk towards 0 in small scenes.

    Args:
        audit: N labels with the columns of `disagreement`.
        scenes: Scene of each label, in the same order.

    Returns:
        N values each, 0 for a label alone in its scene: `scene_residual_share`, cloud that the models see beyond the
        labels (negative: that the labels have beyond the models); `scene_against_share`, pixels where all models
        contradict the labels. Both are shares of a chip's known pixels.
    """
    return {
        "scene_residual_share": _of_others(audit["predicted_share"] - audit["label_share"], scenes),
        "scene_against_share": _of_others(audit["all_against_share"], scenes),
    }


def shared(own: pd.Series | Floats, others: pd.Series | Floats) -> Floats:
    """Return what a label has in common with the others of its scene: the smaller of two figures of equal sign, else 0.

    A right label in a scene of wrong ones is not suspected, because it has nothing in common with them.
    """
    return np.where(np.sign(own) == np.sign(others), np.minimum(np.abs(own), np.abs(others)), 0.0)


def _of_others(values: pd.Series, scenes: pd.Series) -> Floats:
    by_scene = values.groupby(scenes.to_numpy())
    others = by_scene.transform("sum") - values
    return np.asarray(others / (by_scene.transform("size") - 1 + UNSEEN_LABELS), np.float64)
