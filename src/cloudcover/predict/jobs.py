"""Output files of a batch of chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.colours import true_bands
from cloudcover.data.grid import Grid
from cloudcover.masks.codec import encode_soft_labels
from cloudcover.predict.outputs import Outputs, Product
from cloudcover.predict.preview import Thumbnail


class Job(NamedTuple):
    """A chip of a batch to write.

    Attributes:
        row: Position in the batch.
        name: Name of the chip.
        grid: Georeferencing of the chip.
        conversion: How the files' values became DN.
    """

    row: int
    name: str
    grid: Grid
    conversion: str


def write_jobs(
    dn: NDArray[np.uint16],
    masks: NDArray[np.uint8],
    probabilities: NDArray[np.float32] | None,
    jobs: Sequence[Job],
    bands: list[str],
    outputs: Outputs,
) -> None:
    """Finish masks in place and write the files of their chips.

    Args:
        dn: N x B x H x W uint16 [DN].
        masks: N x H x W uint8 of {0, 1, 255}.
        probabilities: N x H x W in [0, 1], or None if they are not requested.
        jobs: Chips to write.
        bands: Names of the bands.
        outputs: Requested files.

    Raises:
        OSError: A file cannot be written.
    """
    for job in jobs:
        mask, thumbnail, codes = masks[job.row], None, None
        if outputs.preview:
            thumbnail = Thumbnail(mask.shape[0], mask.shape[1], true_bands(bands))
            thumbnail.add(0, dn[job.row])
        if probabilities is not None:
            codes = encode_soft_labels(probabilities[job.row])
            codes[mask == IGNORE_INDEX] = IGNORE_INDEX
        outputs.write(Product(job.name, job.grid, mask, codes, thumbnail, job.conversion))
