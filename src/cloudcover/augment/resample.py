"""Rotation, zoom, random windows and other resolutions.

Images are sampled by bilinear interpolation, labels and weights by nearest neighbour. Pixels without data are excluded
from the interpolation; where they have more than half of the weight, the result has no data either. Pixels from outside
the chip have no data and an unknown label.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, has_data, integers, uniform
from cloudcover.config.augmentation import AugmentationParams
from cloudcover.data.chips import IGNORE_INDEX

SIZE_STEP = 32
"""Sizes are multiples of this, because the encoders halve their input five times."""


def affine(batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator) -> None:
    """Rotate by up to `rotation` degrees and zoom by 1 / `zoom` to `zoom` (uniform in the logarithm)."""
    angles = (uniform((len(drawn),), -params.rotation, params.rotation, generator) * math.pi / 180).tolist()
    zooms = uniform((len(drawn),), -math.log(params.zoom), math.log(params.zoom), generator).exp().tolist()
    device = batch.images.device
    for i, angle, zoom in zip(drawn, angles, zooms, strict=True):
        grid = _grid(batch.size, angle, zoom, device)

        def bilinear(image: Tensor, grid: Tensor = grid) -> Tensor:
            return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]

        outside = grid[0].abs().amax(-1) > 1
        pixels = _interpolate(batch.images[i], batch.nodata, bilinear)
        batch.images[i] = pixels.masked_fill_(outside, batch.nodata)
        for plane, fill in zip(batch.marks(), (IGNORE_INDEX, 0), strict=False):
            nearest = F.grid_sample(
                plane[i].float()[None, None], grid, mode="nearest", padding_mode="border", align_corners=False
            )
            plane[i] = nearest[0, 0].masked_fill_(outside, fill)


def _grid(size: tuple[int, int], angle: float, zoom: float, device: torch.device) -> Tensor:
    """Return the sampling grid, 1 x H x W x 2: source coordinates x and y of each pixel, in [-1, 1] within the chip."""
    height, width = size
    y, x = (torch.arange(side, device=device) - (side - 1) / 2 for side in size)
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    from_x = (x * cos)[None, :] - (y * sin)[:, None]
    from_y = (x * sin)[None, :] + (y * cos)[:, None]
    return torch.stack([from_x * (2 / width), from_y * (2 / height)], -1)[None]


def crop(batch: ChipBatch, size: int, generator: torch.Generator) -> ChipBatch:
    """Cut a random window of `size` pixels a side from each chip.

    Raises:
        ValueError: The window is larger than the chips.
    """
    height, width = batch.size
    if size > min(height, width):
        raise ValueError(f"augmentation.crop_size {size} is larger than the chips, {height} x {width}")
    corners = [(integers(height - size + 1, generator), integers(width - size + 1, generator)) for _ in batch.masks]
    windows = []
    for plane in batch.planes():
        window = torch.empty((*plane.shape[:-2], size, size), dtype=plane.dtype, device=plane.device)
        for i, (top, left) in enumerate(corners):
            window[i] = plane[i, ..., top : top + size, left : left + size]
        windows.append(window)
    return batch.replaced(windows)


def resize(batch: ChipBatch, factor: float) -> ChipBatch:
    """Resample the batch to another resolution.

    Args:
        batch: Chips of H x W pixels.
        factor: Scale factor of height and width, which are rounded to multiples of 32 pixels. Below 1, the bilinear
            filter is widened to cover all pixels (as in Pillow), so that none are skipped.
    """
    old = batch.size
    height, width = new = [max(SIZE_STEP, round(side * factor / SIZE_STEP) * SIZE_STEP) for side in old]
    images = torch.empty((*batch.images.shape[:2], height, width), dtype=batch.images.dtype, device=batch.images.device)

    def bilinear(image: Tensor) -> Tensor:
        return F.interpolate(image[None], size=new, mode="bilinear", align_corners=False, antialias=True)[0]

    for i in range(len(images)):
        images[i] = _interpolate(batch.images[i], batch.nodata, bilinear)
    rows, columns = (
        ((torch.arange(n, device=images.device) + 0.5) * (o / n)).long() for n, o in zip(new, old, strict=True)
    )
    nearest = [plane[:, rows[:, None], columns] for plane in batch.marks()]
    return ChipBatch(images, nearest[0], nearest[1] if len(nearest) > 1 else None, batch.nodata)


def _interpolate(image: Tensor, nodata: int, bilinear: Callable[[Tensor], Tensor]) -> Tensor:
    """Resample an image (B x H x W) with a bilinear filter that ignores pixels without data.

    The result is float32, rounded if the image has an integer dtype.
    """
    pixels = image.float()
    valid = has_data(pixels, nodata)
    if bool(valid.amin()):
        result = bilinear(pixels)
    else:
        share = bilinear(valid)
        result = bilinear(pixels.mul_(valid)).div_(share.clamp(min=1e-6))
        result = torch.where(share >= 0.5, result, float(nodata))
    return result if image.is_floating_point() else result.round_()
