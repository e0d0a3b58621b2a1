"""Random changes of training batches, in which image, label and weight of a pixel stay together.

Batches travel as digital numbers (uint16), and most augmentations change them in place, chip by chip: copying into
memory that is already there is what makes them cheap on a CPU. There chips may also stay in the store's memory maps:
symmetries then only change the order in which they are read, and the first other augmentation copies them.
`docs/augmentation.md` shows each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, Images, integers, uniform
from cloudcover.augment.mixing import chessmix, cloud_paste, cutmix, mosaic
from cloudcover.augment.photometric import brightness_contrast
from cloudcover.augment.resample import affine, crop, resize
from cloudcover.augment.symmetries import d4, hflip, rotate90, vflip
from cloudcover.config.augmentation import AugmentationParams

Augmentation = Callable[[ChipBatch, list[int], AugmentationParams, torch.Generator], None]
"""Changes the drawn chips of a batch in place; everything random comes from the generator."""

AUGMENTATIONS: dict[str, Augmentation] = {
    "hflip": hflip,
    "vflip": vflip,
    "rotate90": rotate90,
    "d4": d4,
    "affine": affine,
    "brightness_contrast": brightness_contrast,
    "mosaic": mosaic,
    "cutmix": cutmix,
    "chessmix": chessmix,
    "cloud_paste": cloud_paste,
}
"""By the name of their probability in `AugmentationParams`, in the order in which they are applied.

Those that mix chips come after those that change single chips, so that every part of a mixed chip has been turned and
brightened on its own. Crops and resolutions come last, because they change the size of the whole batch.
"""


def augment(
    images: Tensor, masks: Tensor, params: AugmentationParams, generator: torch.Generator, *, nodata: int = 0
) -> tuple[Tensor, Tensor]:
    """Augments a batch whose chips all weigh the same; arguments and errors as `augment_weighted`.

    Returns:
        The images and masks that were given, changed; new ones if their size changed.
    """
    batch = _augment(ChipBatch(images, masks, None, nodata), params, generator, generator)
    return batch.images, batch.masks


def augment_weighted(
    images: Images,
    masks: Tensor,
    weight: Tensor,
    params: AugmentationParams,
    generator: torch.Generator,
    *,
    nodata: int = 0,
    of_batch: torch.Generator | None = None,
) -> tuple[Images, Tensor, Tensor]:
    """Augments a batch, in place where its size stays.

    Args:
        images: N x B x H x W of any dtype, contiguous or not, on any device [DN]; or N views of the store
            (`ChipStore.mapped`), which are never changed.
        masks: N x H x W of {0, 1, 255}, or soft labels in [0, 1] with 255 for unknown.
        weight: N, the weight of each chip in the loss.
        params: the probability of each augmentation, per chip unless its description says per batch.
        generator: decides everything random; the same state gives the same batch. One on the CPU also serves batches
            on a GPU, which then never has to wait for a number.
        nodata: value of pixels without data [DN].
        of_batch: draws what is the same for a whole batch; processes that share a batch give it the same state, so
            that all have the same resolution. None: `generator`.

    Returns:
        Images, masks and weights. Views of the store stay views while symmetries are all that is drawn. Where chips
        may be mixed the weights are N x H x W, because each pixel keeps the weight of the chip that it comes from;
        otherwise the N that were given.

    Raises:
        ValueError: image and mask sizes differ, or the chips are too small or not square for an augmentation.
    """
    pixels = None
    if params.mixes:
        pixels = weight.to(masks.device)[:, None, None].expand(masks.shape).clone()
    batch = _augment(ChipBatch(images, masks, pixels, nodata), params, generator, of_batch or generator)
    return batch.chips, batch.masks, weight if batch.weights is None else batch.weights


def _augment(
    batch: ChipBatch, params: AugmentationParams, generator: torch.Generator, of_batch: torch.Generator
) -> ChipBatch:
    images, masks = (len(batch.chips), *batch.chips[0].shape), tuple(batch.masks.shape)
    if images[:1] + images[2:] != masks:
        raise ValueError(f"images {images} and masks {masks} do not belong together")
    for name, apply in AUGMENTATIONS.items():
        probability = getattr(params, name)
        if not probability:
            continue  # draws nothing, so that a new augmentation does not change the runs without it
        chance = torch.rand(len(batch.masks), generator=generator, device=generator.device)
        if drawn := (chance < probability).nonzero().flatten().tolist():
            apply(batch, drawn, params, generator)
    if params.crop_size is not None:
        batch = crop(batch, params.crop_size, generator)
    if params.multi_resolution and float(uniform((1,), 0, 1, of_batch)) < params.multi_resolution:
        batch = resize(batch, params.resolutions[integers(len(params.resolutions), of_batch)])
    return batch
