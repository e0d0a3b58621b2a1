"""Refusal of sets that cannot be made on this machine, before anything is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.synthetic.clouds import MARGIN

MB = 10**6
WORKING = 100
"""Memory for each pixel of a chip and its margin while it is drawn [bytes]."""
MOST_EMPTY = 10_000
"""Largest number of scenes of which some have no chip."""


def refuse_impossible(params: SyntheticParams, data: DataParams, raw: Path, workers: int) -> None:
    """Refuse a set that fits neither on the disk nor into memory, or that has very many scenes without a chip.

    Files of an earlier set count as free space, because they are replaced one by one.

    Args:
        params: Numbers of chips and scenes.
        data: Bands and chip size.
        raw: Output folder; it need not exist.
        workers: Number of processes, each of which draws one chip at a time.

    Raises:
        ValueError: The message names the parameter, what it needs, what there is, and the remedy.
    """
    if params.scenes > max(params.chips, MOST_EMPTY):
        raise ValueError(
            f"synthetic.scenes: {params.scenes} scenes for {params.chips} chips: a scene needs a chip, so set "
            f"synthetic.scenes to {params.chips} or less"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    working = WORKING * (data.chip_size + 2 * MARGIN) ** 2 * min(workers, params.chips)
    if working > memory:
        raise ValueError(
            f"data.chip_size: drawing {min(workers, params.chips)} chips of {data.chip_size} x {data.chip_size} pixels "
            f"at a time needs {working // MB:,} MB of memory, but this machine has {memory // MB:,} MB: make "
            "them smaller, or use fewer workers"
        )
    need = data.chip_size**2 * params.chips * (2 * len(data.bands) + 1)  # pixels of the bands and the true masks
    if need > (free := _free_space(raw)):
        raise ValueError(
            f"synthetic.chips: {params.chips} chips of {data.chip_size} x {data.chip_size} pixels need at least "
            f"{-(-need // MB):,} MB in {raw}, but only {free // MB:,} MB are free: make fewer or smaller chips, or "
            "make room"
        )


def _free_space(raw: Path) -> int:
    """Return the free space of the disk that a folder is or will be on, with what the folder holds [bytes]."""
    place = next(folder for folder in (raw.absolute(), *raw.absolute().parents) if folder.exists())
    used = sum(file.stat().st_size for file in raw.rglob("*") if file.is_file() and not file.is_symlink())
    return shutil.disk_usage(place).free + used
