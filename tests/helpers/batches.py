"""Batches of chips and parameters for tests of augmentations."""

from __future__ import annotations

import torch
from torch import Tensor

from cloudcover.augment.apply import AUGMENTATIONS
from cloudcover.config.augmentation import AugmentationParams

MIXING = ["mosaic", "cutmix", "chessmix", "cloud_paste"]
"""Augmentations that give pixels of one chip to another."""
CHANGES = {
    **{name: {name: 1.0} for name in AUGMENTATIONS},
    "crop": {"crop_size": 32},
    "smaller": {"multi_resolution": 1.0, "resolutions": [0.5]},
    "larger": {"multi_resolution": 1.0, "resolutions": [1.4]},
}
"""Parameters under which each kind of change is certain."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**values: object) -> AugmentationParams:
    """Parameters with all other augmentations off."""
    return AugmentationParams(**{"hflip": 0.0, "vflip": 0.0, **values})


def numbered(n: int = 5, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A batch in which band 0 numbers the pixels (high numbers first), band 1 is the mask, band 2 tells the chip."""
    number = torch.arange(n * height * width, dtype=torch.int32).view(n, height, width)
    masks = torch.tensor([0, 1, 255, 0, 1])[number % 5]
    chip = torch.arange(1, n + 1, dtype=torch.int32)[:, None, None].expand_as(number)
    images = torch.stack([65535 - number, masks.to(torch.int32) + 1, chip], 1).to(torch.uint16)
    return images, masks.to(torch.uint8), torch.arange(1, n + 1).float()


def numbers(images: Tensor) -> Tensor:
    return 65535 - images[:, 0].to(torch.int32)


def blobs(n: int = 4, size: int = 64, bands: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of smooth clouds with some unknown pixels and a stripe without data."""
    draw = generator(3)
    field = torch.nn.functional.avg_pool2d(torch.randn(n, 1, size, size, generator=draw), 17, 1, 8)[:, 0]
    masks = (field > 0.02).to(torch.uint8)
    images = 900 + 3000 * masks[:, None] + 300 * torch.rand(n, bands, size, size, generator=draw)
    masks[torch.rand(n, size, size, generator=draw) < 0.05] = 255
    images[:, :, :, 5:9] = 0
    return images.to(torch.int32).to(torch.uint16), masks, torch.linspace(0.5, 1, n)
