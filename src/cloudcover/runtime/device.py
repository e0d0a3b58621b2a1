"""Choice of device and precision for a network."""

from __future__ import annotations

import torch


class DeviceError(ValueError):
    """A requested device that is not available."""


class DeviceMemoryError(ValueError):
    """Insufficient device memory; the message says which setting to lower."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error reports a lack of memory; torch has no exception class for that on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def resolve_device(wanted: str) -> str:
    """Resolve `auto`, `cpu` or `cuda` to `cpu` or `cuda`.

    Raises:
        DeviceError: `cuda` was requested, but there is no usable GPU; there is no silent fallback.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError(
            "the device cuda was requested (compute.device or --device), but torch finds no usable GPU: set it to "
            "auto or cpu, or install a CUDA build of torch"
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def precision(wanted: str, device: str) -> str:
    """Resolve `compute.precision` to `fp32`, `bf16` or `fp16`; `auto` is bfloat16 on a GPU and float32 on a CPU."""
    return ("bf16" if device == "cuda" else "fp32") if wanted == "auto" else wanted
