"""Which device and which precision a network runs with."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """The requested device is not there."""


class DeviceMemoryError(ValueError):
    """The memory of a device is too small; the message says what to lower."""


def resolve_device(wanted: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        DeviceError: `cuda` was asked for and there is no usable GPU; nothing falls back silently.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError(
            "the device cuda was asked for (compute.device or --device), but torch finds no usable GPU: "
            "set it to auto or cpu, or install a CUDA build of torch"
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def precision(wanted: str, device: str) -> str:
    """`fp32`, `bf16` or `fp16` for `compute.precision`: `auto` is bfloat16 on a GPU and float32 on a CPU."""
    return ("bf16" if device == "cuda" else "fp32") if wanted == "auto" else wanted
