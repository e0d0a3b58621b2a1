"""Held-out predictions on disk, made for every chip by models that have not seen its scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloudcover.config.sections import Tta
from cloudcover.data import tables
from cloudcover.masks.codec import decode_predictions
from cloudcover.runtime.arrays import open_array


class OutOfFold:
    """Probabilities of one or several runs, out of fold or for the test part; several runs are averaged equally.

    Args:
        folders: Outputs of `predict.oof.predict_oof` for the same chips.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)
        self.table = tables.OOF.read(self.folders[0] / "index.csv").set_index("chip_id", drop=False)

    def probabilities(self, chip_ids: Sequence[str], policy: Tta) -> NDArray[np.float32]:
        """Return N x H x W float32 in [0, 1]."""
        rows = self.table.loc[list(chip_ids), "row"].to_numpy()
        arrays = [open_array(f / f"{policy}.npy")[rows].astype(np.float32) for f in self.folders]
        return decode_predictions(np.mean(arrays, axis=0))


class BundleMasks:
    """The bundle's masks of the test part, exactly as delivered.

    Args:
        index: Table by `tables.OOF`, in the folder of `masks.npy`.
    """

    def __init__(self, index: Path) -> None:
        self.table = tables.OOF.read(index).set_index("chip_id", drop=False)
        self._masks: NDArray[np.uint8] = open_array(index.parent / "masks.npy")

    def masks(self, chip_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Return N x H x W uint8 of {0, 1, 255}."""
        return np.asarray(self._masks[self.table.loc[list(chip_ids), "row"].to_numpy()])
