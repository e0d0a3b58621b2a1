"""Losses for one logit per pixel, and labels that are hard ({0, 1}) or soft (shares of cloud in [0, 1]).

The label 255 means unknown and is always ignored.

All losses are computed over the whole batch and not averaged over images. The challenge's metric is one global Jaccard,
and the Jaccard of a chip without cloud is undefined.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from torch import Tensor

from cloudcover.losses.lovasz import lovasz_hinge, lovasz_softmax
from cloudcover.losses.standard import cross_entropy, focal, soft_dice, soft_jaccard
from cloudcover.losses.targets import smooth

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`loss(logits, target, weight)`: logits N x 1 x H x W, target N x H x W, weight N or N x H x W or None -> scalar.

The target holds integers of {0, 1, 255}, or floating-point shares of cloud in [0, 1] and 255. A chip or pixel of weight
w counts like w copies of it. Without a valid pixel the loss and its gradient are 0.
"""


def _bce_dice(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return cross_entropy(logits, target, weight) + soft_dice(logits, target, weight)


def _jaccard_focal(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    # The factor is that of the challenge's winners: the focal loss stabilises the start, the Jaccard loss dominates
    # later.
    return soft_jaccard(logits, target, weight) + 0.1 * focal(logits, target, weight)


def _bce_lovasz(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return cross_entropy(logits, target, weight) + lovasz_hinge(logits, target, weight)


LOSSES: dict[str, Loss] = {
    "lovasz": lovasz_hinge,
    "lovasz_softmax": lovasz_softmax,
    "bce_dice": _bce_dice,
    "jaccard_focal": _jaccard_focal,
    "cross_entropy": cross_entropy,
    "bce_lovasz": _bce_lovasz,
}


def build_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """Return the loss with a given name.

    Args:
        name: Key of `LOSSES`.
        label_smoothing: Share e; labels y are replaced by (1 - e) y + e / 2.

    Raises:
        ValueError: The loss does not exist; the message lists the options and the nearest name.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"unknown loss {name!r}{hint} (options: {', '.join(LOSSES)})")
    loss = LOSSES[name]
    if not label_smoothing:
        return loss

    def smoothed(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        return loss(logits, smooth(target, label_smoothing), weight)

    return smoothed
