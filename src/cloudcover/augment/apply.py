"""Random augmentation of training batches that keeps the image, label and weight of a pixel together.

Batches hold digital numbers (uint16), and most augmentations change them in place, chip by chip. Writing into existing
memory is what makes them cheap on a CPU. On a CPU, chips may also stay in the store's memory maps: symmetries then only
change the order in which they are read, and the first other augmentation copies them. `docs/augmentation.md` shows each
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cloudcover.augment.batch import ChipBatch, Images, integers, uniform
from cloudcover.augment.mixing import chessmix, cloud_paste, cutmix, mosaic
from cloudcover.augment.photometric import brightness_contrast
from cloudcover.augment.resample import affine, crop, resize
from cloudcover.augment.symmetries import d4, hflip, rotate90, vflip
from cloudcover.config.augmentation import AugmentationParams, PerChip

Augmentation = Callable[[ChipBatch, list[int], AugmentationParams, torch.Generator], None]
"""Function that changes the drawn chips of a batch in place; all randomness comes from the generator."""

AUGMENTATIONS: dict[PerChip, Augmentation] = {
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
"""Augmentations by the name of their probability in `AugmentationParams`, in the order of application.

Mixing comes after the augmentations of single chips, so that the parts of a mixed chip are augmented independently.
Crops and resolutions come last, because they change the size of the whole batch.
"""


def augment(
    images: Tensor, masks: Tensor, params: AugmentationParams, generator: torch.Generator, *, nodata: int = 0
) -> tuple[Tensor, Tensor]:
    """Augment a batch of chips with equal weights; arguments and errors as for `augment_weighted`.

    Returns:
        The given images and masks, changed in place; new ones if their size changes.
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
    pseudo: Sequence[bool] | None = None,
) -> tuple[Images, Tensor, Tensor]:
    """Augment a batch, in place where its size does not change.

    Args:
        images: N x B x H x W of any dtype, contiguous or not, on any device [DN]; or N views of the store
            (`ChipStore.mapped`), which are never changed.
        masks: N x H x W of {0, 1, 255}, or soft labels in [0, 1] with 255 for unknown.
        weight: N loss weights, one per chip.
        params: Probability of each augmentation, per chip unless its description says per batch.
        generator: Source of all randomness; the same state gives the same batch. A generator on the CPU also works for
            batches on a GPU, which then never waits for a random number.
        nodata: Value of pixels without data [DN].
        of_batch: Generator for draws that apply to the whole batch. Processes that share a batch give it the same
            state, so that all use the same resolution. None: `generator`.
        pseudo: N flags, True for pseudo-labelled chips, to which `params.pseudo` applies. None: no chip is.

    Returns:
        Images, masks and weights. Views of the store stay views if only symmetries are drawn. If chips may be mixed,
        the weights are N x H x W, because each pixel keeps the weight of its original chip; otherwise they are the N
        given ones.

    Raises:
        ValueError: Image and mask sizes differ, or the chips are too small or not square for an augmentation.
    """
    pixels = None
    if params.mixes:
        pixels = weight.to(masks.device)[:, None, None].expand(masks.shape).clone()
    batch = _augment(ChipBatch(images, masks, pixels, nodata), params, generator, of_batch or generator, pseudo)
    return batch.chips, batch.masks, weight if batch.weights is None else batch.weights


def _augment(
    batch: ChipBatch,
    params: AugmentationParams,
    generator: torch.Generator,
    of_batch: torch.Generator,
    pseudo: Sequence[bool] | None = None,
) -> ChipBatch:
    images, masks = (len(batch.chips), *batch.chips[0].shape), tuple(batch.masks.shape)
    if images[:1] + images[2:] != masks:
        raise ValueError(f"images {images} and masks {masks} do not belong together")
    kinds = torch.tensor([False] * len(batch.masks) if pseudo is None else pseudo, device=generator.device)
    for name, apply in AUGMENTATIONS.items():
        given, other = params.probabilities(name)
        if not max(given, other):
            continue  # draws no random number, so that a new augmentation does not change runs without it
        chance = torch.rand(len(batch.masks), generator=generator, device=generator.device)
        if drawn := (chance < torch.where(kinds, other, given)).nonzero().flatten().tolist():
            apply(batch, drawn, params, generator)
    if params.crop_size is not None:
        batch = crop(batch, params.crop_size, generator)
    if params.multi_resolution and float(uniform((1,), 0, 1, of_batch)) < params.multi_resolution:
        batch = resize(batch, params.resolutions[integers(len(params.resolutions), of_batch)])
    return batch
