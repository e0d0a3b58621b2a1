"""Random brightness and contrast per band."""

from __future__ import annotations

import torch

from cloudcover.augment.batch import ChipBatch, has_data, uniform
from cloudcover.config.augmentation import AugmentationParams


def brightness_contrast(
    batch: ChipBatch, drawn: list[int], params: AugmentationParams, generator: torch.Generator
) -> None:
    """Scale the mean m of each band of a chip to b m, and the distances from it by c.

    b and c are drawn for each band, up to `brightness` and `contrast` away from 1. Pixels without data keep their
    value. A pixel that would get the nodata value is moved one step away, which preserves the order of a band's pixels.
    Integers stay within the range of their type.
    """
    shape = (len(drawn), batch.images.shape[1], 1, 1)
    device, dtype = batch.images.device, batch.images.dtype
    brightness = (1 + uniform(shape, -params.brightness, params.brightness, generator)).to(device, torch.float32)
    contrast = (1 + uniform(shape, -params.contrast, params.contrast, generator)).to(device, torch.float32)
    for k, i in enumerate(drawn):
        old = batch.images[i].float()
        valid = has_data(old, batch.nodata)
        pixels = valid.sum((-2, -1), keepdim=True).clamp(min=1)
        mean = (old * valid).sum((-2, -1), keepdim=True) / pixels
        new = (old * contrast[k]).add_(mean * (brightness[k] - contrast[k]))
        if not dtype.is_floating_point:
            limits = torch.iinfo(dtype)
            new.round_().clamp_(limits.min, limits.max)
            taken = 1 - has_data(new, batch.nodata)
            new.add_(taken, alpha=1 if batch.nodata < limits.max else -1)
        batch.images[i] = new.sub_(old).mul_(valid).add_(old)
