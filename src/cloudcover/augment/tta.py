"""Test-time augmentation: predictions averaged over views of a chip, in one forward pass.

A view is an element of the symmetry group of the square (D4): an optional transposition, then flips of height, width or
both. The eight combinations form the whole group, including rotations by 90 degrees.
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloudcover.config.sections import Tta


class PolicyError(ValueError):
    """A policy that is impossible for the shape of the chips."""


class View(NamedTuple):
    """A view: whether height and width are swapped, and which axes are flipped afterwards."""

    transpose: bool
    flips: tuple[int, ...]

    def apply(self, batch: Tensor) -> Tensor:
        """Apply the view to a batch of … x H x W."""
        turned = batch.transpose(-1, -2) if self.transpose else batch
        return turned.flip(self.flips) if self.flips else turned

    def of(self, array: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Return the view of an array of … x H x W without a copy: the same memory in another order."""
        turned = array.swapaxes(-1, -2) if self.transpose else array
        return np.flip(turned, self.flips) if self.flips else turned

    def undo(self, batch: Tensor) -> Tensor:
        """Turn a prediction of this view back to the chip's orientation."""
        back = batch.flip(self.flips) if self.flips else batch
        return back.transpose(-1, -2) if self.transpose else back


_FLIPS = ((), (-2,), (-1,), (-2, -1))

POLICIES: dict[Tta, tuple[View, ...]] = {
    "none": (View(False, ()),),
    "vflip": (View(False, ()), View(False, (-2,))),
    "hflip": (View(False, ()), View(False, (-1,))),
    "flips": tuple(View(False, flips) for flips in _FLIPS),
    "d4": tuple(View(transpose, flips) for transpose in (False, True) for flips in _FLIPS),
}
"""Views by policy; policies share views, so each view is predicted once."""


def _views_of(policy: Tta) -> tuple[View, ...]:
    if policy not in POLICIES:
        raise ValueError(f"unknown TTA policy {policy!r}; options: {', '.join(get_args(Tta))}")
    return POLICIES[policy]


def views(batch: Tensor, policy: Tta) -> Tensor:
    """Stack the K views of a batch.

    Args:
        batch: N x B x H x W; d4 needs H = W, because it turns chips by 90 degrees.
        policy: None | vflip | hflip | flips | d4.

    Returns:
        K·N x B x H x W, all chips of the first view first.

    Raises:
        ValueError: The policy is unknown.
        PolicyError: d4 is used with chips that are not square.
    """
    chosen = _views_of(policy)
    if any(view.transpose for view in chosen) and batch.shape[-1] != batch.shape[-2]:
        raise PolicyError(
            f"TTA policy {policy} needs square chips, got {batch.shape[-2]} x {batch.shape[-1]} (flips takes any)"
        )
    return batch if len(chosen) == 1 else torch.cat([view.apply(batch) for view in chosen])


def merge(probabilities: Tensor, policy: Tta, n: int) -> Tensor:
    """Average the predictions of `views(batch, policy)` in the chips' own orientation.

    Args:
        probabilities: K·N x … x H x W. Pass probabilities, not logits: the original also averaged probabilities, and a
            single very confident view cannot outvote the others.
        policy: The policy passed to `views`.
        n: Number of chips, N.

    Returns:
        N x … x H x W.

    Raises:
        ValueError: The policy is unknown, or the batch does not hold K views of `n` chips.
    """
    chosen = _views_of(policy)
    if len(probabilities) != n * len(chosen):
        raise ValueError(
            f"TTA policy {policy} gives {len(chosen)} views of {n} chips, got {len(probabilities)} predictions"
        )
    if len(chosen) == 1:
        return probabilities
    stacked = probabilities.reshape(len(chosen), n, *probabilities.shape[1:])
    total = torch.zeros_like(stacked[0])
    for view, prediction in zip(chosen, stacked, strict=True):
        total += view.undo(prediction)
    return total / len(chosen)
