"""Labels and weights in the form that all losses accept.

A target is either hard, integers of {0, 1, 255}, or soft, floating-point shares of cloud in [0, 1]; 255 is unknown in
both. A weight is given per chip (N) or per pixel (N x H x W, where augmentations have mixed chips).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cloudcover.data.chips import IGNORE_INDEX


def check(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Refuse shapes that do not match.

    Raises:
        ValueError: The shapes do not match; the message lists them.
    """
    if (
        logits.ndim != 4
        or logits.shape[1] != 1
        or logits.shape[:1] + logits.shape[2:] != target.shape
        or (weight is not None and weight.shape not in (target.shape[:1], target.shape))
    ):
        shapes = [tuple(t.shape) for t in (logits, target, weight) if t is not None]
        raise ValueError(f"expected logits N x 1 x H x W, target N x H x W and N weights (or N x H x W), got {shapes}")


def per_pixel(weight: Tensor, target: Tensor) -> Tensor:
    """Broadcast weights, given per chip or per pixel, to a view of N x H x W on the target's device."""
    weight = weight.to(target.device)
    return (weight[:, None, None] if weight.ndim == 1 else weight).expand(target.shape)


def smooth(target: Tensor, share: float) -> Tensor:
    """Apply label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567) for two classes.

    Args:
        target: N x H x W, hard or soft.
        share: Share e; a label y becomes (1 - e) y + e / 2.

    Returns:
        N x H x W float32; unknown stays 255.
    """
    labels = target.float()
    return torch.where(target == IGNORE_INDEX, labels, labels * (1 - share) + share / 2)
