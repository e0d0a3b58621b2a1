"""Networks whose answers are known, in place of trained ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cloudcover.config.sections import InputParams
from cloudcover.models.folder import ModelCard
from helpers.layouts import BANDS

ENCODER = "tu-mobilenetv3_small_050"


class Brightness(nn.Module):
    """Stands in for a network: the logit is ten times the first band above a level (in standard deviations)."""

    def __init__(self, level: float = 1.0) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 10 * (inputs[:, :1] - self.level)


class Blurred(nn.Module):
    """Stands in for a network: the logit follows the brightness within 8 pixels, and zeros lie beyond the input."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(1, 1, 17, 17) / 17**2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return 5 * nn.functional.conv2d(inputs[:, :1], self.kernel, padding=8)


def plain_network(*_: Any, **__: Any) -> nn.Module:
    """A network without batch statistics, which differ where a batch is shared."""
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


def card(**changes) -> ModelCard:
    values = {
        "architecture": "unet", "encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8], "bands": BANDS, "nodata": 0,
        "input": InputParams.model_validate({}), "chip_size": 64, "fingerprint": "f", "run": "final/unet",
        "fold": 0, "seed": 1,
    }  # fmt: skip
    return ModelCard.model_validate(values | changes)
