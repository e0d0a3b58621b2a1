"""Standard losses, masked and weighted: cross-entropy, focal, soft Dice and soft Jaccard.

All of them accept soft targets, in a form that is minimal where the prediction equals the target.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.losses.targets import check, per_pixel


def _prepare(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, targets in [0, 1] and weights (0 where unknown), each N x H x W in float32 or better."""
    check(logits, target, weight)
    flat = logits.squeeze(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    weights = (target != IGNORE_INDEX).to(flat.dtype)
    cloud = target.to(flat.dtype) * weights
    if weight is not None:
        weights = weights * per_pixel(weight, target).to(flat.dtype)
    return flat, cloud, weights


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean, or 0 if all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the weighted mean binary cross-entropy over valid pixels; arguments as in `losses.build.Loss`."""
    flat, cloud, weights = _prepare(logits, target, weight)
    return _mean(F.binary_cross_entropy_with_logits(flat, cloud, reduction="none"), weights)


def focal(logits: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Compute the weighted mean focal loss over valid pixels (Lin et al. 2017, https://arxiv.org/abs/1708.02002).

    Cross-entropy times |y - p|^gamma, where p is the probability of cloud. For hard labels that is (1 - p_t)^gamma of
    the paper; for soft ones it is the quality focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388).
    """
    flat, cloud, weights = _prepare(logits, target, weight)
    entropy = F.binary_cross_entropy_with_logits(flat, cloud, reduction="none")
    return _mean((cloud - torch.sigmoid(flat)).abs() ** gamma * entropy, weights)


def _overlap(logits: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the soft intersection and the sum of both areas [weighted pixels].

    The intersection of probability p and target y is min(p, y). For hard labels that equals p y, but for soft ones the
    product would be largest at p = 1 (Wang et al. 2023, https://arxiv.org/abs/2302.05666, Jaccard metric loss).
    """
    flat, cloud, weights = _prepare(logits, target, weight)
    probability = torch.sigmoid(flat)
    intersection = (torch.minimum(probability, cloud) * weights).sum()
    return intersection, ((probability + cloud) * weights).sum()


def soft_dice(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute 1 - Dice coefficient (Milletari et al. 2016, https://arxiv.org/abs/1606.04797) over the batch.

    One pixel is added to numerator and denominator, so that an empty mask and an empty prediction agree.
    """
    intersection, areas = _overlap(logits, target, weight)
    return 1 - (2 * intersection + 1) / (areas + 1)


def soft_jaccard(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute 1 - Jaccard index of probabilities over the batch, with one pixel added as in `soft_dice`."""
    intersection, areas = _overlap(logits, target, weight)
    return 1 - (intersection + 1) / (areas - intersection + 1)
