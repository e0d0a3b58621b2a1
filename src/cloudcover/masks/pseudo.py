"""Pseudo-labels on disk, read by training, evaluation and report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloudcover.data import tables
from cloudcover.masks.codec import decode_soft_labels, harden_soft_labels
from cloudcover.runtime.arrays import open_array

HARD, SOFT = "masks.npy", "probabilities.npy"
"""Files of pseudo-labels, of which a folder has one: {0, 1, 255}, or the codes of `cloudcover.masks.codec`."""


def by_student(table: Path) -> dict[int, PseudoLabels]:
    """Open the pseudo-labels of a round for each student in its table, `pseudo_labels.csv`."""
    return {student: PseudoLabels(table, student) for student in sorted(set(tables.PSEUDO.read(table)["student"]))}


class PseudoLabels:
    """The pseudo-labels of a round for one student: of a folder with `pseudo_labels.csv`, and `masks.npy` or soft ones.

    Args:
        manifest: the table, `tables.PSEUDO`.
        student: fold that the student does not see.

    Attributes:
        soft: whether the folder holds probabilities. Only `targets` tell them; everything else sees masks.
    """

    def __init__(self, manifest: Path, student: int) -> None:
        table = tables.PSEUDO.read(manifest)
        self.table = table[table["student"] == student].set_index("chip_id", drop=False)
        self.soft = (manifest.parent / SOFT).exists()
        self._codes: NDArray[np.uint8] = open_array(manifest.parent / (SOFT if self.soft else HARD))

    def masks(self, chip_ids: list[str]) -> NDArray[np.uint8]:
        """N x H x W uint8 of {0, 1, 255}."""
        codes = self._read(chip_ids)
        return harden_soft_labels(codes) if self.soft else codes

    def targets(self, chip_ids: list[str]) -> NDArray[np.uint8 | np.float32]:
        """What to learn: N x H x W, uint8 of {0, 1, 255}, or float32 shares of cloud and 255 for unknown if `soft`."""
        codes = self._read(chip_ids)
        return decode_soft_labels(codes) if self.soft else codes

    def _read(self, chip_ids: list[str]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._codes[self.table.loc[chip_ids, "row"].to_numpy()]
        return codes
