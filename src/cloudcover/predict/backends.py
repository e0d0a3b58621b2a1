"""What computes a network's logits: torch, or OpenVINO for a folder that `cloudcover.predict.openvino.export` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from cloudcover.models.folder import ModelCard, load_model
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from cloudcover.runtime.device import precision as precision_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backend(Protocol):
    """A network that is ready to predict.

    Attributes:
        card: what the network is, and how it wants its input.
    """

    card: ModelCard

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits N x H x W float32 of scaled chips N x B x H x W float32, on their device."""


class TorchBackend:
    """A model folder, run by torch.

    Args:
        folder: written by `save_model`.
        device: `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
    """

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        network, self.card = load_model(folder, device)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.dtype = DTYPES[precision_of(precision, device)]

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Backend`."""
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = self.network(inputs.contiguous(memory_format=torch.channels_last))
        return logits.float()[:, 0]


def load_backend(folder: Path, device: str, precision: str) -> Backend:
    """The engine of a model folder: OpenVINO if it was exported, else torch; arguments as for `TorchBackend`.

    Raises:
        ModelFolderError: a part of the folder is missing, corrupt or belongs to another model.
        ExportError: an exported folder is to run with another device or precision than its own, or OpenVINO is not
            installed.
    """
    if (folder / EXPORT_CARD).exists():
        from cloudcover.predict.openvino.backend import OpenvinoBackend

        return OpenvinoBackend(folder, device, precision)
    return TorchBackend(folder, device, precision)
