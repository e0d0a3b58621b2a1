"""Chips with their labels, as the audit reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.store import ChipStore


def read_labelled(
    store: ChipStore, chip_ids: Sequence[str], nodata: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Read chips and labels, and mark as unknown what has no data in any band.

    Args:
        store: The packed chips.
        chip_ids: N chips.
        nodata: Value of pixels without data [DN].

    Returns:
        N x B x H x W uint16 [DN], and N x H x W uint8 of {0, 1, 255}.
    """
    dn, labels = store.chips(chip_ids), store.labels(chip_ids)
    labels[(dn == nodata).any(axis=1)] = IGNORE_INDEX
    return dn, labels
