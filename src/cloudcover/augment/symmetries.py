"""Flips and quarter turns, which do not change pixel values."""

from __future__ import annotations

import torch
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, integers
from cloudcover.augment.tta import View
from cloudcover.config.augmentation import AugmentationParams

TURNS = (View(False, ()), View(True, (-2,)), View(False, (-2, -1)), View(True, (-1,)))
"""Turns by 0, 90, 180 and 270 degrees."""
HFLIP, VFLIP = View(False, (-1,)), View(False, (-2,))
SYMMETRIES = (*TURNS, HFLIP, View(True, ()), VFLIP, View(True, (-2, -1)))
"""The symmetry group of the square, D4."""


def turned(plane: Tensor, view: View) -> Tensor:
    """Copy a plane (… x H x W) in one of the square's symmetries."""
    return view.apply(plane) if view.flips else view.apply(plane).clone()


def hflip(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Flip left to right."""
    _move(batch, dict.fromkeys(drawn, HFLIP))


def vflip(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Flip top to bottom."""
    _move(batch, dict.fromkeys(drawn, VFLIP))


def rotate90(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Turn by 90, 180 or 270 degrees."""
    _check_square(batch, "rotate90")
    _move(batch, {i: TURNS[1 + integers(3, generator)] for i in drawn})


def d4(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Apply one of the square's eight symmetries, including the identity."""
    _check_square(batch, "d4")
    _move(batch, {i: SYMMETRIES[integers(len(SYMMETRIES), generator)] for i in drawn})


def _move(batch: ChipBatch, views: dict[int, View]) -> None:
    if isinstance(batch.chips, list):  # no pixel moves: only the reading order changes
        batch.chips = [views[i].of(chip) if i in views else chip for i, chip in enumerate(batch.chips)]
        planes = batch.marks()
    else:
        planes = batch.planes()
    for plane in planes:
        for i, view in views.items():
            # Band by band, so that the copy stays in the CPU cache.
            for part in plane[i] if plane.ndim == 4 and plane.device.type == "cpu" else [plane[i]]:
                part.copy_(turned(part, view))


def _check_square(batch: ChipBatch, name: str) -> None:
    height, width = batch.size
    if height != width:
        raise ValueError(f"{name} needs square chips, got {height} x {width}")
