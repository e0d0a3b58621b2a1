"""The suspicions and predictions that the page shows: those of the newest run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.masks.out_of_fold import OutOfFold
from cloudcover.runtime.arrays import open_array

THRESHOLD = 0.5
"""Probability above which a pixel is cloud."""


class PredictionsError(ValueError):
    """Predictions that cannot be shown; the message names the folder and the reason."""


def newest_audit(folder: Path) -> Path | None:
    """Find the judgement of the last round, or else of the baseline; return None if there is none.

    Args:
        folder: The folder `data/audit`.
    """
    rounds = {int(m[1]): path for path in folder.glob("*.csv") if (m := re.fullmatch(r"round(\d+)", path.stem))}
    first = folder / "baseline.csv"
    return rounds[max(rounds)] if rounds else first if first.exists() else None


def newest(root: Path) -> list[Path]:
    """Find the folders of the newest run below `root`.

    The last round is preferred, because it learned from the cleanest labels. Next come the members of the final
    ensemble, which are averaged, and then any other run, such as the baseline.

    Args:
        root: The folder `data/oof`, or the folder of one run.

    Returns:
        The folders; an empty list if there are no predictions.
    """
    if (root / "index.csv").exists():
        return [root]
    runs = sorted(path.parent for path in root.glob("**/index.csv"))
    rounds = {int(m[1]): run for run in runs if (m := re.fullmatch(r"round(\d+)", run.name))}
    if rounds:
        return [rounds[max(rounds)]]
    return [run for run in runs if run.parent.name == "final"] or runs[:1]


class Predictions:
    """Predicted masks of labelled chips.

    Args:
        folders: Result of `newest`.
        size: Height and width of the store's chips [pixels].

    Raises:
        PredictionsError: The folders have no policy in common, or their chips have another size.
    """

    def __init__(self, folders: list[Path], size: int) -> None:
        self.oof = OutOfFold(folders)
        shared = [tta for tta in get_args(Tta) if all((f / f"{tta}.npy").exists() for f in folders)]
        if not shared:
            raise PredictionsError(f"{folders[0]} contains no predictions, such as {get_args(Tta)[0]}.npy")
        self.policy: Tta = shared[-1]  # the policy with the most views
        for folder in folders:
            shape = open_array(folder / f"{self.policy}.npy").shape
            if shape[1:] != (size, size):
                raise PredictionsError(f"{folder} is of {shape[1]} x {shape[2]} pixels, but the store's are {size}")

    def mask(self, chip_id: str) -> NDArray[np.bool_] | None:
        """Return H x W bool, True for cloud; None for a chip without a prediction."""
        if chip_id not in self.oof.table.index:
            return None
        return np.asarray(self.oof.probabilities([chip_id], self.policy)[0] > THRESHOLD)
