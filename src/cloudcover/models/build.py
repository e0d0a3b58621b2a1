"""Construction of a segmentation model from its parameters: N x B x H x W in, one logit per pixel out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from cloudcover.config.encoders import unknown_encoder
from cloudcover.config.sections import ModelParams
from cloudcover.models import lite0
from cloudcover.models.border import Bordered
from cloudcover.models.cloudnet import CloudNet
from cloudcover.runtime.files import sha256
from cloudcover.runtime.text import listed

Builder = Callable[[ModelParams, int], nn.Module]

COLOURS = {"B04": 0, "B03": 1, "B02": 2}
"""Channel of each band's colour in RGB."""


class ModelError(ValueError):
    """A network that cannot be built; the message names the wrong part and the options."""


class EncoderWeightsError(ModelError):
    """Encoder weights that are unavailable: unreachable, missing, with a wrong hash, or of another encoder."""


def _smp(network: type[nn.Module], takes_decoder_channels: bool = False) -> Builder:
    def build(model: ModelParams, in_channels: int) -> nn.Module:
        options: dict[str, Any] = {}
        if takes_decoder_channels and model.decoder_channels is not None:
            depth = len(model.decoder_channels)
            options |= {"decoder_channels": tuple(model.decoder_channels), "encoder_depth": depth}
        built = network(encoder_name=model.encoder, encoder_weights=None, in_channels=in_channels, classes=1, **options)
        _drop_unused(built)
        return built

    return build


ARCHITECTURES: dict[str, Builder] = {
    "unet": _smp(smp.Unet, takes_decoder_channels=True),
    "unetplusplus": _smp(smp.UnetPlusPlus, takes_decoder_channels=True),
    "fpn": _smp(smp.FPN),
    "deeplabv3plus": _smp(smp.DeepLabV3Plus),
    "linknet": _smp(smp.Linknet),
    "segformer": _smp(smp.Segformer),
    "cloudnet": lambda model, in_channels: CloudNet(in_channels),
}
"""Architecture -> function that builds it with random weights."""


def build_model(model: ModelParams, bands: Sequence[str], *, pretrained: bool = True) -> Bordered:
    """Build a network that gives one logit per pixel for chips of any height and width.

    Args:
        model: Architecture, encoder, encoder weights, and border. `decoder_channels` applies to the U-Nets. Cloud-Net
            has no encoder, and only `border` applies to it.
        bands: Names of the bands, in channel order; they determine which pretrained filters each band gets (`filters`).
        pretrained: Whether to load `model.encoder_weights`; False never accesses the internet.

    Raises:
        ModelError: The architecture or encoder is unknown, or they are incompatible.
        EncoderWeightsError: The encoder's weights are unavailable.
    """
    if model.architecture not in ARCHITECTURES:
        raise ModelError(f"unknown architecture {model.architecture!r}; options: {', '.join(ARCHITECTURES)}")
    if problem := unknown_encoder(model.encoder):
        raise ModelError(problem)
    try:
        network = ARCHITECTURES[model.architecture](model, len(bands))
    except (ValueError, KeyError, TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"architecture {model.architecture} cannot be built with encoder {model.encoder} "
            f"and decoder_channels {model.decoder_channels}: {error}"
        ) from error
    if pretrained and model.encoder_weights is not None and hasattr(network, "encoder"):
        _load_encoder(network, model, bands)
    return Bordered(network, model.border)


def filters(rgb: Tensor, bands: Sequence[str]) -> Tensor:
    """Give each band the pretrained filters of its colour.

    Args:
        rgb: O x 3 x ..., filters for red, green and blue.
        bands: Names of the bands. B04, B03 and B02 get the filters for red, green and blue, every other band their
            mean.

    Returns:
        O x B x ..., scaled by 3 / B as in timm, which preserves the magnitude of the layer's response.
    """
    mean = rgb.mean(dim=1)
    chosen = [rgb[:, COLOURS[band]] if band in COLOURS else mean for band in bands]
    return torch.stack(chosen, dim=1) * (rgb.shape[1] / len(bands))


def _drop_unused(network: nn.Module) -> None:
    """Drop the stages of a timm encoder below the last one that the decoder reads; timm keeps and computes them."""
    model = getattr(network.get_submodule("encoder"), "model", None)
    blocks, info = getattr(model, "blocks", None), getattr(model, "feature_info", None)
    if isinstance(blocks, nn.Sequential) and info is not None:
        stages = [part["stage"] for part in info.get_dicts() if "stage" in part]
        if stages:
            del blocks[max(stages) :]


def _load_encoder(network: nn.Module, model: ModelParams, bands: Sequence[str]) -> None:
    if model.encoder_weights == "imagenet":
        encoder = _downloaded_encoder(model)
    elif model.encoder_weights == "lite0":
        encoder = _lite0_encoder(model)
    else:
        encoder = _local_encoder(model)
    state = encoder.state_dict()
    # The shape reveals which weights see the bands; some encoders have several such layers.
    gray = get_encoder(model.encoder, in_channels=1, weights=None).state_dict()
    for name, tensor in state.items():
        if tensor.shape != gray[name].shape:
            state[name] = filters(tensor, bands)
    # Dilated convolutions (DeepLab) have the same weights, so one plain encoder serves all architectures, and a
    # shallower encoder takes those of its stages.
    own = network.get_submodule("encoder")
    own.load_state_dict({name: state[name] for name in own.state_dict()}, strict=True)


def _downloaded_encoder(model: ModelParams) -> nn.Module:
    weights: str | bool = True if model.encoder.startswith("tu-") else "imagenet"
    try:
        encoder: nn.Module = get_encoder(model.encoder, in_channels=3, weights=weights)
    except Exception as error:  # each HTTP library has its own
        raise EncoderWeightsError(
            f"the ImageNet weights of {model.encoder} could not be downloaded ({type(error).__name__}: {error}). "
            f"Without a network, fetch {_source(model.encoder)} elsewhere and give its path as model.encoder_weights; "
            "null starts from random weights"
        ) from error
    return encoder


def _source(name: str) -> str:
    """Return where the ImageNet weights of an encoder are published."""
    if name.startswith("tu-"):
        import timm

        config = timm.models.get_pretrained_cfg(name[3:])
        hub = config.hf_hub_id if config else None
    else:
        from segmentation_models_pytorch.encoders import encoders

        hub = encoders[name]["pretrained_settings"].get("imagenet", {}).get("repo_id")
    return f"model.safetensors of the Hugging Face repository {hub}" if hub else "a weight file of this encoder"


def _local_encoder(model: ModelParams) -> nn.Module:
    path = Path(str(model.encoder_weights))
    if not path.is_file():
        raise EncoderWeightsError(f"model.encoder_weights: there is no file {path} (or write imagenet, lite0 or null)")
    expected = model.encoder_weights_sha256
    if expected is not None and (found := sha256(path)) != expected.lower():
        raise EncoderWeightsError(f"{path} has SHA-256 {found}, but model.encoder_weights_sha256 is {expected}")
    try:
        if model.encoder.startswith("tu-"):
            return _timm_encoder(model.encoder, {"file": str(path)})
        encoder = get_encoder(model.encoder, in_channels=3, weights=None)
        encoder.load_state_dict(_read_weights(path))
    except Exception as error:
        raise EncoderWeightsError(f"{path} does not hold weights of encoder {model.encoder}: {error}") from error
    plain: nn.Module = encoder
    return plain


def _lite0_encoder(model: ModelParams) -> nn.Module:
    if model.encoder != lite0.ENCODER:
        raise EncoderWeightsError(f"model.encoder_weights: lite0 is for {lite0.ENCODER}, not for {model.encoder}")
    try:
        weights = lite0.weights()
    except (ImportError, ValueError) as error:
        raise EncoderWeightsError(f"model.encoder_weights: lite0 is unavailable: {error}") from error
    encoder = {name: tensor for name, tensor in weights.items() if not name.startswith(lite0.HEAD)}
    return _timm_encoder(model.encoder, {"state_dict": encoder})


def _timm_encoder(name: str, source: dict[str, Any]) -> nn.Module:
    """Create an RGB encoder of timm from a file or a state; timm converts every layout that it ever published.

    Args:
        name: Name of the encoder, with the prefix `tu-`.
        source: Value of `file` or `state_dict`, overriding the key of the same name in timm's `pretrained_cfg`.
    """

    def load(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder: nn.Module = get_encoder(name, in_channels=3, weights=True, pretrained_cfg_overlay=source)
        return encoder

    # timm only logs weights that are missing from a file. They stay random, so they differ between two seeds.
    encoder, twin = load(0), load(1)
    pairs = zip(encoder.named_parameters(), twin.parameters(), strict=True)
    if random := [name for (name, one), other in pairs if not torch.equal(one, other)]:
        raise ValueError(f"it has none for {listed(random, 3)}")
    return encoder


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name; pickled code is never executed."""
    if path.suffix == ".safetensors":
        return load_file(path)
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
