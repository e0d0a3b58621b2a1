"""What computes a network's logits: torch, or OpenVINO for a folder that `cloudcover.predict.openvino.export` wrote."""

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
    """A network that is ready to predict.

    Attributes:
        card: what the network is, and how it wants its input.
    """

    card: ModelCard

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits N x H x W float32 of scaled chips N x B x H x W float32, on their device."""

    def prepare(self, shape: torch.Size) -> None:
        """Get ready for a long run of batches of this shape, N x B x H x W; others can still be predicted."""


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
        self._compiled: Any = None
        self._compiled_shape: torch.Size | None = None

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Backend`."""
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            run = self._compiled if inputs.shape == self._compiled_shape else self.network
            logits: Tensor = run(inputs.contiguous(memory_format=torch.channels_last))
        return logits.float()[:, 0]

    @torch.inference_mode()
    def prepare(self, shape: torch.Size) -> None:
        """See `Backend`: compiles the network for this shape, unless it is already."""
        if shape != self._compiled_shape:
            self._compiled, self._compiled_shape = torch.compile(self.network, dynamic=False), shape
            self.logits(torch.zeros(shape, device=self.device))


def load_backend(folder: Path, device: str, precision: str) -> Backend:
    """Return the engine of a model folder: OpenVINO if it was exported, else torch; arguments as for `TorchBackend`.

    Raises:
        ModelFolderError: a part of the folder is missing, corrupt or belongs to another model.
        ExportError: an exported folder is to run with another device or precision than its own, or OpenVINO is not
            installed.
    """
    if (folder / EXPORT_CARD).exists():
        from cloudcover.predict.openvino.backend import OpenvinoBackend

        return OpenvinoBackend(folder, device, precision)
    return TorchBackend(folder, device, precision)
