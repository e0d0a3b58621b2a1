"""The moving average of the weights, which validation and the published model use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EMA:
    """An exponential moving average of a network's weights and floating-point buffers.

    Polyak & Juditsky 1992. The decay grows with the steps, min(decay, (1 + t) / (10 + t)), so that early averages
    are not dominated by the random start. Integer buffers, such as batch counts, are those of the network.

    Args:
        network: Network that is read after every step, on its current device.
        decay: Decay per step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        # References to the network's own tensors, which are always changed in place.
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
        """Use the average in the network and restore its own weights afterwards; before the first step, do nothing."""
        weights = list(self._weights.values())
        own = [value.clone() for value in weights]
        with torch.no_grad():
            if self._average:
                torch._foreach_copy_(weights, self._average)
            yield
            torch._foreach_copy_(weights, own)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the averages by name."""
        return {"steps": self.steps, "average": dict(zip(self._weights, self._average, strict=False))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`; the average moves to the device of the weights."""
        self.steps = state["steps"]
        self._average = [
            state["average"][name].to(value.device) for name, value in self._weights.items() if name in state["average"]
        ]
