"""Pseudo-labels on disk, for training, evaluation and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloudcover.data import tables
from cloudcover.masks.codec import decode_soft_labels, harden_soft_labels
from cloudcover.runtime.arrays import open_array

HARD, SOFT = "masks.npy", "probabilities.npy"
"""Files of pseudo-labels, one of which is in a folder: {0, 1, 255}, or the codes of `cloudcover.masks.codec`."""


class PseudoLabels:
    """The pseudo-labels made by a round, accepted or not.

    Args:
        manifest: Table by `tables.ROUND`, in a folder with `masks.npy` or `probabilities.npy`.

    Attributes:
        table: The chips that have a pseudo-label, indexed by chip_id.
        soft: Whether the folder holds probabilities. Only `targets` returns them; all other methods return masks.
    """

    def __init__(self, manifest: Path) -> None:
        table = tables.ROUND.read(manifest)
        self.table = table[table["row"] >= 0].set_index("chip_id", drop=False)
        self.soft = (manifest.parent / SOFT).exists()
        self._codes: NDArray[np.uint8] = open_array(manifest.parent / (SOFT if self.soft else HARD))

    def accepted(self) -> list[str]:
        """List the chips whose pseudo-labels the next training learns from."""
        return self.table.loc[self.table["label"] == "pseudo", "chip_id"].tolist()

    def masks(self, chip_ids: list[str]) -> NDArray[np.uint8]:
        """Return N x H x W uint8 of {0, 1, 255}."""
        codes = self._read(chip_ids)
        return harden_soft_labels(codes) if self.soft else codes

    def targets(self, chip_ids: list[str]) -> NDArray[np.uint8 | np.float32]:
        """Return training targets N x H x W: uint8 of {0, 1, 255}, or, if `soft`, float32 shares of cloud and 255."""
        codes = self._read(chip_ids)
        return decode_soft_labels(codes) if self.soft else codes

    def _read(self, chip_ids: list[str]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._codes[self.table.loc[chip_ids, "row"].to_numpy()]
        return codes
