"""U-Net upsampling in a form that compiles to fast code.

`torch.compile` turns the gradient of nearest-neighbour upsampling into indexed sums, which are slow on a GPU in
deterministic mode. Repeating pixels gives the same values, and the gradient is a sum over the copies.
"""

from __future__ import annotations

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock
from torch import Tensor, nn


def double(pixels: Tensor) -> Tensor:
    """Double the height and width by repeating pixels: N x C x H x W to N x C x 2H x 2W, in channels_last."""
    n, channels, height, width = pixels.shape
    rows = pixels.permute(0, 2, 3, 1)[:, :, None, :, None]
    copies = rows.expand(n, height, 2, width, 2, channels)
    return copies.reshape(n, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class _Block(UnetDecoderBlock):  # type: ignore[misc]
    """The library's block, with `double` for upsampling; its sizes are always twice those of the block below."""

    def forward(
        self, feature_map: Tensor, target_height: int, target_width: int, skip_connection: Tensor | None = None
    ) -> Tensor:
        """Compute the same as the library's block."""
        larger = double(feature_map)
        if skip_connection is not None:
            larger = self.attention1(torch.cat([larger, skip_connection], dim=1))
        result: Tensor = self.attention2(self.conv2(self.conv1(larger)))
        return result


def repeat_pixels(network: nn.Module) -> None:
    """Make U-Net's decoder upsample with `double`; other networks, weights and outputs are unchanged."""
    for module in network.modules():
        if type(module) is UnetDecoderBlock and module.interpolation_mode == "nearest":
            module.__class__ = _Block
