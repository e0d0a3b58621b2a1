"""Names of encoders: those of segmentation-models-pytorch, and those of timm with the prefix `tu-`."""

from __future__ import annotations

import difflib

_COMMON = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "efficientnet-b0", "mobilenet_v2", "mit_b0",
    "tu-resnet10t", "tu-resnet18", "tu-resnet34", "tu-resnet50", "tu-resnest50d", "tu-resnext50_32x4d",
    "tu-mobilenetv3_small_050", "tu-mobilenetv3_small_075", "tu-mobilenetv3_small_100", "tu-mobilenetv3_large_100",
    "tu-mobilenetv4_conv_small", "tu-tf_efficientnet_lite0", "tu-efficientnet_b0", "tu-convnext_tiny",
)  # fmt: skip
"""A fixed list, because the check runs before every DAG and importing timm takes seconds."""


def unknown_encoder(name: str) -> str | None:
    """Explain what is wrong with an encoder's name.

    Args:
        name: Name as in `model.encoder`, for example `resnet34` or `tu-resnest50d`.

    Returns:
        None for a known encoder, otherwise a message that suggests the nearest names.
    """
    if name in _COMMON:
        return None
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    if name in get_encoder_names() or (name.startswith("tu-") and timm.is_model(name[3:])):
        return None
    options = [*get_encoder_names(), *(f"tu-{model}" for model in timm.list_models())]
    bare = name.removeprefix("timm-").removeprefix("tu-")
    near = [f"tu-{bare}"] if f"tu-{bare}" in options else []
    near += [n for n in difflib.get_close_matches(name, options, n=5, cutoff=0.5) if n not in near]
    return (
        f"{name!r} is not an encoder"
        + (f"; did you mean {' or '.join(near[:3])}?" if near else "")
        + " (options: the encoders of segmentation-models-pytorch, and timm's with the prefix tu-)"
    )
