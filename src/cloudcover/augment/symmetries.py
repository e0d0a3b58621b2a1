"""Flips and quarter turns: every pixel keeps its value."""

from __future__ import annotations

import torch
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, integers
from cloudcover.params import AugmentationParams

SYMMETRIES = 8
"""Of the square, the group D4: four turns, each with and without a left-right flip."""
HFLIP, VFLIP = 4, 6
"""Numbers of the two flips: an up-down flip is a left-right flip and half a turn."""


def symmetry(plane: Tensor, number: int) -> Tensor:
    """A copy of a plane (… x H x W) in one of the square's symmetries: a flip from 4 on, `number` % 4 quarter turns."""
    return torch.rot90(plane.flip(-1) if number >= 4 else plane, number % 4, (-2, -1))


def hflip(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Left-right flip."""
    _move(batch, dict.fromkeys(drawn, HFLIP))


def vflip(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Up-down flip."""
    _move(batch, dict.fromkeys(drawn, VFLIP))


def rotate90(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Turn by 90, 180 or 270 degrees."""
    _check_square(batch, "rotate90")
    _move(batch, {i: 1 + integers(3, generator) for i in drawn})


def d4(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """One of the square's eight symmetries, the one that changes nothing included."""
    _check_square(batch, "d4")
    _move(batch, {i: integers(SYMMETRIES, generator) for i in drawn})


def _move(batch: ChipBatch, numbers: dict[int, int]) -> None:
    for plane in batch.planes():
        for i, number in numbers.items():
            plane[i] = symmetry(plane[i], number)


def _check_square(batch: ChipBatch, name: str) -> None:
    height, width = batch.size
    if height != width:
        raise ValueError(f"{name} needs square chips, got {height} x {width}")
