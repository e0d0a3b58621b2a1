"""Cloud-Net (Mohajerani & Saeedi 2019, https://arxiv.org/abs/1901.10077), a U-Net made for cloud masks.

The implementation follows the paper. Cloud-Net differs from a U-Net in three ways:

- a contracting block adds a shortcut to its convolutions: its input concatenated with a 1 x 1 convolution of it, which
  doubles the channels as the block does;
- an expanding block sees the features of *all* shallower levels, pooled to its size and repeated to its number of
  channels, not only those of its own level;
- its output is the sum of its convolutions, the features of its level and the input from below.

There is no encoder in the sense of segmentation-models-pytorch, hence no pretrained weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 5
"""Levels above the bridge; height and width must be multiples of 2 ** 5."""
DROPOUT = 0.15


def _convolutions(in_channels: int, channels: int, number: int, size: int = 3) -> Iterator[nn.Module]:
    for k in range(number):
        yield nn.Conv2d(in_channels if k == 0 else channels, channels, size, padding=size // 2)
        yield nn.BatchNorm2d(channels)
        yield nn.ReLU(inplace=True)


class Contracting(nn.Module):
    """A block from N x C x H x W to N x 2C x H x W.

    Args:
        channels: Number of channels, C.
        dropout: Whether some features are dropped before the last normalisation, as in the bridge.
        deep: Whether the block has three convolutions, and the output of the second one again through a 1 x 1
            convolution, as on the last level.
    """

    def __init__(self, channels: int, *, dropout: bool = False, deep: bool = False) -> None:
        super().__init__()
        steps = list(_convolutions(channels, 2 * channels, 2))
        if dropout:
            steps.insert(4, nn.Dropout(DROPOUT))
        self.main = nn.Sequential(*steps)
        self.third = nn.Sequential(*_convolutions(2 * channels, 2 * channels, 1)) if deep else None
        self.middle = nn.Sequential(*_convolutions(2 * channels, 2 * channels, 1, size=1)) if deep else None
        self.shortcut = nn.Sequential(*_convolutions(channels, channels, 1, size=1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.main(x)
        if self.third is not None and self.middle is not None:
            out = self.third(out) + self.middle(out)
        return F.relu(out + torch.cat([x, self.shortcut(x)], 1))


class Expanding(nn.Module):
    """A block from N x 2C x H x W from below and the features of all levels above to N x C x 2H x 2W.

    Args:
        channels: Number of channels, C.
        convolutions: Number of convolutions; three on the deepest level.
    """

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.main = nn.Sequential(*_convolutions(2 * channels, channels, convolutions))

    def forward(self, below: Tensor, features: list[Tensor]) -> Tensor:
        """Combine `below` with `features`, those of all levels from the first to this one."""
        up, own = self.up(below), features[-1]
        return F.relu(self.main(torch.cat([up, gather(features)], 1)) + own + up)


def gather(features: list[Tensor]) -> Tensor:
    """Sum the features of all levels at the size of the last, max-pooled and repeated along the channels."""
    *shallower, own = features
    if not shallower:
        return own
    total = own
    for level in shallower:
        pooled = F.max_pool2d(level, level.shape[-1] // own.shape[-1])
        total = total + pooled.repeat(1, own.shape[1] // level.shape[1], 1, 1)
    return F.relu(total)


class CloudNet(nn.Module):
    """Cloud-Net, from N x B x H x W to logits N x 1 x H x W; H and W are multiples of 32.

    Args:
        in_channels: Number of bands.
        width: Channels of the first convolution; 16 in the paper, which gives 32 to 512 on the levels.
    """

    def __init__(self, in_channels: int, width: int = 16) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.stem = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(inplace=True))
        self.contracting = nn.ModuleList(Contracting(c, deep=c == channels[-1]) for c in channels)
        self.bridge = Contracting(2 * channels[-1], dropout=True)
        self.expanding = nn.ModuleList(Expanding(2 * c, 3 if c == channels[-1] else 2) for c in reversed(channels))
        self.head = nn.Conv2d(2 * width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class.

        Raises:
            ValueError: Height or width is not a multiple of 32.
        """
        if x.shape[-1] % 2**LEVELS or x.shape[-2] % 2**LEVELS:
            raise ValueError(f"Cloud-Net needs multiples of {2**LEVELS} pixels, got {x.shape[-2]} x {x.shape[-1]}")
        x = self.stem(x)
        features: list[Tensor] = []
        for block in self.contracting:
            x = block(x if not features else F.max_pool2d(x, 2))
            features.append(x)
        x = self.bridge(F.max_pool2d(x, 2))
        for level, expand in zip(range(LEVELS, 0, -1), self.expanding, strict=True):
            x = expand(x, features[:level])
        logits: Tensor = self.head(x)
        return logits
