"""The true masks of a synthetic set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloudcover.data import tables
from cloudcover.data.chips import read_mask


class TrueMasks:
    """The true masks of chips.

    Attributes:
        table: Table by `tables.TRUTH`, indexed by chip_id; without rows if the true masks are unknown.
        soft: False: students learn masks.
    """

    soft = False

    def __init__(self, manifest: Path) -> None:
        """Read the table; the masks are in its folder."""
        self._root = manifest.parent
        self.table = tables.TRUTH.read(manifest).set_index("chip_id", drop=False)

    def masks(self, chip_ids: list[str]) -> NDArray[np.uint8]:
        """Return N x H x W uint8 of {0, 1}."""
        read = [read_mask(self._root / path, "truth")[0] for path in self.table.loc[chip_ids, "path"]]
        return np.stack(read)

    targets = masks
