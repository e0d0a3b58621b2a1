"""Engines that compute a network's logits: torch, or OpenVINO for folders by `cloudcover.predict.openvino.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cloudcover.models.folder import ModelCard, load_model
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from cloudcover.runtime.device import precision as precision_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backend(Protocol):
    """A network ready for prediction.

    Attributes:
        card: Description of the network and its input.
    """

    card: ModelCard

    def logits(self, inputs: Tensor) -> Tensor:
        """Compute logits N x H x W float32 from scaled chips N x B x H x W float32, on their device."""

    def prepare(self, shape: torch.Size) -> None:
        """Prepare for many batches of this shape, N x B x H x W; other shapes can still be predicted."""


class TorchBackend:
    """A model folder, run by torch.

    Args:
        folder: Folder written by `save_model`.
        device: `cpu` or `cuda`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
    """

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        network, self.card = load_model(folder, device)
        self.network: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.dtype = DTYPES[precision_of(precision, device)]
        self._compiled: Any = None
        self._compiled_shape: torch.Size | None = None

    def logits(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            run = self._compiled if inputs.shape == self._compiled_shape else self.network
            logits: Tensor = run(inputs.contiguous(memory_format=torch.channels_last))
        return logits.float()[:, 0]

    @torch.inference_mode()
    def prepare(self, shape: torch.Size) -> None:
        """Compile the network for this shape, unless it is already compiled for it."""
        if shape != self._compiled_shape:
            self._compiled, self._compiled_shape = torch.compile(self.network, dynamic=False), shape
            self.logits(torch.zeros(shape, device=self.device))


def load_backend(folder: Path, device: str, precision: str) -> Backend:
    """Load the engine of a model folder: OpenVINO if it was exported, else torch; arguments as for `TorchBackend`.

    Raises:
        ModelFolderError: A part of the folder is missing, corrupt or belongs to another model.
        ExportError: The device or precision is not that of an exported folder, or OpenVINO is not installed.
    """
    if (folder / EXPORT_CARD).exists():
        from cloudcover.predict.openvino.backend import OpenvinoBackend

        return OpenvinoBackend(folder, device, precision)
    return TorchBackend(folder, device, precision)
