"""The average of the weights, which validation and the published model use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """Exponential moving average of a network's weights and floating-point buffers.

    Polyak & Juditsky 1992. The decay grows with the steps, min(decay, (1 + t) / (10 + t)), so that early averages
    are not dominated by the random start. Buffers of whole numbers, such as counts of batches, stay the network's.

    Args:
        network: read after every step, on the device where it is by then.
        decay: per step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        # These tensors are the network's own: whatever changes its weights changes them in place.
        self._weights = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        self._average: list[Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights, all tensors at once."""
        self.steps += 1
        weights = list(self._weights.values())
        if not self._average:
            self._average = [value.clone() for value in weights]
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._average, weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the network, and its own weights back at the end; without a step nothing happens."""
        weights = list(self._weights.values())
        own = [value.clone() for value in weights]
        with torch.no_grad():
            if self._average:
                torch._foreach_copy_(weights, self._average)
            yield
            torch._foreach_copy_(weights, own)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the average by name."""
        return {"steps": self.steps, "average": dict(zip(self._weights, self._average, strict=False))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`; the average moves to the device of the weights."""
        self.steps = state["steps"]
        self._average = [
            state["average"][name].to(value.device) for name, value in self._weights.items() if name in state["average"]
        ]
