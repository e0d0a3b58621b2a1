"""Mirrored borders, which networks see instead of zero padding.

The zero padding of convolutions causes false cloud in a chip's outermost pixels (docs/real_chips.md). The sides of a
network's input must be multiples of 32 in any case, so every network pads its own input, and no other code does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

STRIDE = 32
"""The sides of a network's input are multiples of this, because encoders halve them five times [pixels]."""


class Bordered(nn.Module):
    """A network that mirrors its input at the borders and crops its output, for chips of any height and width.

    Training, prediction, `torch.compile` and exports all run this module, so they all pad in the same way. Its state is
    that of the network itself: weights have the same names with and without a border.

    Args:
        network: Module from N x B x H x W to N x C x H x W, for multiples of `STRIDE`.
        border: Minimum number of mirrored pixels on each side. The pixels added to reach the next multiple of `STRIDE`
            are divided between opposite sides.
    """

    def __init__(self, network: nn.Module, border: int) -> None:
        super().__init__()
        self.network = network
        self.border = border

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute N x C x H x W from N x B x H x W; the network gets channels_last."""
        height, width = inputs.shape[-2:]
        (top, rows), (left, columns) = (self._mirrored(side, inputs.device) for side in (height, width))
        pixels = inputs.permute(0, 2, 3, 1)  # in memory order, so that whole pixels are copied
        padded = pixels.index_select(1, rows).index_select(2, columns).permute(0, 3, 1, 2)
        logits: Tensor = self.network(padded)
        return logits[..., top : top + height, left : left + width]

    def _mirrored(self, side: int, device: torch.device) -> tuple[int, Tensor]:
        """Return where the chip begins on the padded side, and the chip's pixel at each place there.

        The edge pixel is repeated (a, b, c becomes c b a a b c c b a), so a chip of any size can be mirrored any number
        of times. There is no branch, so a traced graph is valid for every size.
        """
        padded = (side + 2 * self.border + STRIDE - 1) // STRIDE * STRIDE
        before = (padded - side) // 2
        place = (torch.arange(padded, device=device) - before) % (2 * side)
        return before, torch.minimum(place, 2 * side - 1 - place)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the network's state, under the network's own names."""
        state: dict[str, Any] = self.network.state_dict(*args, **kwargs)
        return state

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the network's state."""
        return self.network.load_state_dict(*args, **kwargs)
