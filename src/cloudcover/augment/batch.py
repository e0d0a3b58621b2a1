"""The batches that augmentations work on, with planes that move together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Images = Tensor | list[NDArray[np.uint16]]
"""Digital numbers of a batch: N x B x H x W of any dtype, or N views of the store, B x H x W (`ChipStore.mapped`)."""


@dataclass
class ChipBatch:
    """A batch whose pixels are moved and changed.

    Attributes:
        chips: Digital numbers [DN].
        masks: N x H x W of {0, 1, 255}, or soft labels in [0, 1] with 255 for unknown.
        weights: N x H x W loss weights of pixels, or None while all pixels of a chip have the same weight.
        nodata: Value of pixels without data [DN].
    """

    chips: Images
    masks: Tensor
    weights: Tensor | None = None
    nodata: int = 0

    @property
    def images(self) -> Tensor:
        """N x B x H x W of any dtype [DN]; chips that are still in the store are copied."""
        if isinstance(self.chips, list):
            self.chips = torch.from_numpy(np.stack(self.chips))
        return self.chips

    @property
    def size(self) -> tuple[int, int]:
        """Height and width [pixels]."""
        return self.masks.shape[-2], self.masks.shape[-1]

    def planes(self) -> list[Tensor]:
        """Return images, masks and weights as planes that the same code can move; their last axes are height and width.

        uint16 is viewed as int16, which torch can flip; moving pixels needs no arithmetic.
        """
        images = self.images.view(torch.int16) if self.images.dtype == torch.uint16 else self.images
        return [images, *self.marks()]

    def marks(self) -> list[Tensor]:
        """Return the planes that accompany the images: masks, and weights if there are any."""
        return [self.masks, *([] if self.weights is None else [self.weights])]

    def replaced(self, planes: list[Tensor]) -> ChipBatch:
        """Return a batch with other planes, in the order of `planes()`."""
        images, masks, *weights = planes
        if self.images.dtype == torch.uint16:
            images = images.view(torch.uint16)
        return ChipBatch(images, masks, weights[0] if weights else None, self.nodata)


def has_data(pixels: Tensor, nodata: int) -> Tensor:
    """Return 1 where float pixels have data, else 0, as float: bool passes are several times slower on a CPU."""
    return torch.ne(pixels, nodata, out=torch.empty_like(pixels))


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw float64 numbers between two bounds, on the generator's device."""
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * drawn


def integers(high: int, generator: torch.Generator) -> int:
    """Draw a whole number from 0 to `high` - 1."""
    return int(torch.randint(high, (), generator=generator, device=generator.device))
