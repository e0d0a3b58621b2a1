"""Augmentations that copy pixels from other chips, together with their labels and weights.

All moved pixels are read before any are written, so the order of the chips in a batch does not matter. In a batch of
one chip there is no other chip: Mosaic and ChessMix then shuffle it, and the others leave it unchanged.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, has_data, integers, uniform
from cloudcover.augment.symmetries import SYMMETRIES, turned
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.data.chips import IGNORE_INDEX


class _Move(NamedTuple):
    """A rectangle of chip `source` with its corner at (down, across), copied into chip `target` at (top, left)."""

    target: int
    top: int
    left: int
    source: int
    down: int
    across: int
    height: int
    width: int
    symmetry: int = 0


def mosaic(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Join four chips at a random point (Bochkovskiy et al. 2020, https://arxiv.org/abs/2004.10934).

    Each quadrant is a random window of its chip, at full resolution. One of the four is the chip itself.
    """
    height, width = batch.size
    moves = []
    for i in drawn:
        y, x = (round(share * side) for share, side in zip(_even(2, generator, 0.25, 0.75), batch.size, strict=True))
        chips = [_other(i, batch, generator) for _ in range(3)]
        chips.insert(integers(4, generator), i)
        corners = [(0, 0, y, x), (0, x, y, width - x), (y, 0, height - y, x), (y, x, height - y, width - x)]
        for j, (top, left, tall, wide) in zip(chips, corners, strict=True):
            down, across = integers(height - tall + 1, generator), integers(width - wide + 1, generator)
            moves.append(_Move(i, top, left, j, down, across, tall, wide))
    _paste(batch, moves)


def cutmix(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Copy a rectangle from the same place of another chip (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The rectangle's share of the area is drawn uniformly from [0, 1], before it is cropped at the borders. It has the
    chip's aspect ratio.
    """
    if len(batch.masks) == 1:
        return
    moves = []
    for i in drawn:
        area, *centre = _even(3, generator)
        half = math.sqrt(area) / 2
        (top, bottom), (left, right) = (
            (max(0, round((c - half) * side)), min(side, round((c + half) * side)))
            for c, side in zip(centre, batch.size, strict=True)
        )
        moves.append(_Move(i, top, left, _other(i, batch, generator), top, left, bottom - top, right - left))
    _paste(batch, moves)


def chessmix(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Replace every second square of a chessboard by a square of any chip, preferably one rich in the rarer class.

    After Pereira & dos Santos 2021 (https://arxiv.org/abs/2108.11535). The other squares stay. A square is drawn with a
    probability proportional to 0.1 + its share of the batch's rarer class, and copied in a random symmetry of the
    square (without quarter turns if the chip is not square).

    Raises:
        ValueError: The chips have fewer pixels per side than the board has squares.
    """
    squares = params.chessmix_squares
    tall, wide = (side // squares for side in batch.size)
    if min(tall, wide) == 0:
        raise ValueError(
            f"augmentation.chessmix_squares {squares} is too many for chips of {' x '.join(map(str, batch.size))}"
        )
    chances = _rarity(batch.masks, tall, wide).to(generator.device)
    rows, columns = chances.shape[1:]
    moves = []
    for i in drawn:
        colour = integers(2, generator)
        places = [(r, c) for r in range(squares) for c in range(squares) if (r + c) % 2 == colour]
        chosen = torch.multinomial(chances.flatten(), len(places), replacement=True, generator=generator).tolist()
        for (r, c), square in zip(places, chosen, strict=True):
            j, row, column = square // (rows * columns), square // columns % rows, square % columns
            way = integers(len(SYMMETRIES), generator)
            way = way if tall == wide else way // 2 * 2
            moves.append(_Move(i, r * tall, c * wide, j, row * tall, column * wide, tall, wide, way))
    _paste(batch, moves)


def cloud_paste(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Paste the clouds of another chip, with all bands (after Copy-Paste, Ghiasi et al. 2021, arXiv 2012.07177).

    Every pixel that is labelled cloud and has data in all bands is copied to the same place. It replaces any pixel
    there, also unknown ones, because its own label is known.
    """
    if len(batch.masks) == 1:
        return
    sources = [_other(i, batch, generator) for i in drawn]
    planes = [[plane[j].clone() for j in sources] for plane in batch.planes()]
    clouds = []
    for j in sources:
        mask = batch.masks[j]
        complete = has_data(batch.images[j].float(), batch.nodata).amin(0) > 0
        clouds.append((mask > 0.5) & (mask != IGNORE_INDEX) & complete)
    for plane, pasted in zip(batch.planes(), planes, strict=True):
        for i, cloud, pixels in zip(drawn, clouds, pasted, strict=True):
            plane[i] = torch.where(cloud, pixels, plane[i])


def _paste(batch: ChipBatch, moves: list[_Move]) -> None:
    for plane in batch.planes():
        patches = []
        for m in moves:
            patch = plane[m.source, ..., m.down : m.down + m.height, m.across : m.across + m.width]
            patches.append(turned(patch, SYMMETRIES[m.symmetry]))
        for m, patch in zip(moves, patches, strict=True):
            plane[m.target, ..., m.top : m.top + m.height, m.left : m.left + m.width] = patch


def _even(n: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> list[float]:
    return uniform((n,), low, high, generator).tolist()


def _other(i: int, batch: ChipBatch, generator: torch.Generator) -> int:
    """Draw a random chip other than `i`, or return `i` if there is no other."""
    chips = len(batch.masks)
    return (i + 1 + integers(chips - 1, generator)) % chips if chips > 1 else i


def _rarity(masks: Tensor, tall: int, wide: int) -> Tensor:
    """Return the relative probability of each square of the batch, N x rows x columns float64."""
    classes = ((masks > 0.5) & (masks != IGNORE_INDEX), masks <= 0.5)
    cloud, clear = (F.avg_pool2d(pixels[:, None].float(), (tall, wide))[:, 0].double() for pixels in classes)
    return 0.1 + (cloud if float(cloud.mean()) <= float(clear.mean()) else clear)
