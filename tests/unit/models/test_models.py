"""Every architecture builds, saves and loads; nothing else is loaded, and nothing is downloaded unasked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cloudcover.config import encoders
from cloudcover.config.encoders import unknown_encoder
from cloudcover.config.sections import InputParams, ModelParams
from cloudcover.models.build import ARCHITECTURES, EncoderWeightsError, ModelError, build_model, filters
from cloudcover.models.folder import ModelCard, ModelFolderError, load_card, load_model, save_model
from cloudcover.models.normalize import Normalize
from cloudcover.models.upsample import repeat_pixels
from cloudcover.runtime.files import read_json, sha256, write_json
from helpers.layouts import BANDS
from helpers.networks import plain_network

TINY = "tu-mobilenetv3_small_050"


@pytest.fixture(autouse=True)
def unreachable_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def params(**values) -> ModelParams:
    return ModelParams(**{"encoder": TINY, "decoder_channels": [16, 8, 8, 8, 4], **values})


def card(**values) -> ModelCard:
    given = {
        "architecture": "unet", "encoder": TINY, "decoder_channels": [16, 8, 8, 8, 4], "border": 16,
        "bands": BANDS, "nodata": 0, "input": InputParams(), "chip_size": 64,
        "fingerprint": "f" * 64, "run": "round1", "fold": 0, "seed": 7, "metrics": {"jaccard": 0.9},
    }  # fmt: skip
    return ModelCard(**{**given, **values})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", build_model(params(), BANDS), card())
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_architecture_takes_a_single_band(architecture):
    model = build_model(params(architecture=architecture), BANDS[:1]).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 1, 64, 64) * 5)
    assert logits.shape == (2, 1, 64, 64)
    assert bool(logits.isfinite().all())


def test_parameters_and_registry_offer_the_same_architectures():
    from typing import get_args

    from cloudcover.config.sections import Architecture

    assert set(ARCHITECTURES) == set(get_args(Architecture))


def test_decoder_channels_shape_the_unet():
    small, own = build_model(params(), BANDS), build_model(params(decoder_channels=None), BANDS)
    assert small.network.segmentation_head[0].in_channels == 4
    assert own.network.segmentation_head[0].in_channels == 16


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_architecture_gives_one_logit_per_pixel_and_the_same_after_loading(tmp_path, architecture):
    model = build_model(params(architecture=architecture), BANDS).to(memory_format=torch.channels_last).eval()
    save_model(tmp_path, model, card(architecture=architecture))
    loaded, found = load_model(tmp_path)
    loaded = loaded.to(memory_format=torch.channels_last)
    batch = torch.randn(2, 4, 64, 64) * 5
    with torch.no_grad():
        logits = loaded(batch)
        assert torch.equal(logits, model(batch))
    assert logits.shape == (2, 1, 64, 64)
    assert bool(logits.isfinite().all())
    assert not loaded.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    assert found == card(architecture=architecture, weights_sha256=found.weights_sha256, versions=found.versions)


def test_a_compiled_model_saves_plain_weights(tmp_path):
    model = plain_network()
    names = set(model.state_dict())
    model.compile(backend="eager")
    model(torch.zeros(2, 4, 8, 8))
    save_model(tmp_path, model, card())
    assert set(load_file(tmp_path / "model.safetensors")) == names


def test_the_card_is_complete(saved):
    found = load_card(saved)
    assert found.weights_sha256 == sha256(saved / "model.safetensors")
    assert set(found.versions) == {"cloudcover", "torch", "segmentation-models-pytorch", "timm"}
    assert found.model_params() == params()
    batch = torch.full((1, 4, 8, 8), 3000, dtype=torch.int32)
    assert torch.equal(
        Normalize(found.input, found.data_params())(batch), Normalize(InputParams(), found.data_params())(batch)
    )


def test_weights_of_another_hash_are_refused(saved, tmp_path):
    save_model(tmp_path / "other", build_model(params(), BANDS), card())
    (tmp_path / "other" / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(ModelFolderError, match="is corrupt or belongs to another model"):
        load_model(saved)


def test_a_flipped_bit_is_noticed(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFolderError, match="SHA-256"):
        load_model(saved)


def seal(folder: Path, **changes) -> None:
    """Makes the card agree with whatever the weight file now holds."""
    values = read_json(folder / "model.json")
    write_json(folder / "model.json", {**values, "weights_sha256": sha256(folder / "model.safetensors"), **changes})


def test_a_pickle_in_place_of_the_weights_never_runs(saved, tmp_path):
    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "poisoned"),)

    torch.save({"state_dict": Poison()}, saved / "model.safetensors")
    seal(saved)
    with pytest.raises(ModelFolderError, match="cannot be loaded"):
        load_model(saved)
    assert not (tmp_path / "poisoned").exists()


def test_weights_of_another_network_are_refused(saved):
    save_file({"some.weight": torch.zeros(3)}, saved / "model.safetensors")
    seal(saved)
    with pytest.raises(ModelFolderError, match="Missing key"):
        load_model(saved)


def test_a_card_for_other_bands_does_not_load_the_weights(saved):
    seal(saved, bands=["B02", "B03", "B04"], input={"mean": [0.3] * 3, "std": [0.2] * 3})
    with pytest.raises(ModelFolderError, match="size mismatch"):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"border": 10**9}, "border: Input should be less than or equal to 4096"),
        ({"chip_size": 10**12}, "chip_size: Input should be less than or equal to 4096"),
        ({"chip_size": 33}, "chip_size 33 is not a multiple of 32"),
        ({"decoder_channels": [10**9] * 5}, r"decoder_channels\.0: Input should be less than or equal to 4096"),
        ({"decoder_channels": [-1] * 5}, r"decoder_channels\.0: Input should be greater than"),
        ({"bands": ["B02"] * 4}, "name a band twice"),
        ({"nodata": 70_000}, "less than or equal to 65535"),
        ({"input": {"std": [0.0] * 4}}, r"input\.std must be above 0"),
        ({"input": {"mean": [0.3]}}, r"input\.mean has 1 values for 4 bands"),
    ],
)
def test_a_card_that_asks_for_the_impossible_is_refused_by_name(saved, changes, message):
    seal(saved, **changes)
    with pytest.raises(ModelFolderError, match=rf"model\.json is not a model card: .*{message}"):
        load_model(saved)


def test_incomplete_and_foreign_folders_are_named(saved, tmp_path):
    with pytest.raises(ModelFolderError, match=r"is not a model folder: model\.json is missing"):
        load_model(tmp_path)
    seal(saved, colour="blue")
    with pytest.raises(ModelFolderError, match="is not a model card: colour: Extra inputs"):
        load_model(saved)
    (saved / "model.json").write_text("{")
    with pytest.raises(ModelFolderError, match="not valid JSON"):
        load_model(saved)
    save_model(saved, build_model(params(), BANDS), card())
    (saved / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"model\.safetensors is missing"):
        load_model(saved)


@pytest.mark.parametrize("name", ["resnet34", "tu-resnest50d", "tu-resnet50.a1_in1k", "timm-efficientnet-b0"])
def test_known_encoders_are_known(name):
    assert unknown_encoder(name) is None


def test_common_encoders_exist():
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    assert {*encoders._COMMON} <= {*get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("resnet3", "resnet34"), ("timm-resnest50d", "tu-resnest50d"), ("resnest50d", "tu-resnest50d")],
)
def test_an_unknown_encoder_gets_the_nearest_name(name, nearest):
    assert f"did you mean {nearest}" in unknown_encoder(name)
    with pytest.raises(ModelError, match=nearest):
        build_model(params(encoder=name), BANDS)


def test_checking_a_common_encoder_loads_no_library():
    code = (
        "import sys; from cloudcover.config.encoders import unknown_encoder\n"
        f"assert unknown_encoder({TINY!r}) is None; print(bool({{'torch', 'timm'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_unknown_architecture_and_unfit_parts_are_named():
    with pytest.raises(ModelError, match="unknown architecture 'unet3'; options: unet, unetplusplus"):
        build_model(params().model_copy(update={"architecture": "unet3"}), BANDS)
    with pytest.raises(ModelError, match="architecture linknet cannot be built with encoder mit_b0"):
        build_model(params(architecture="linknet", encoder="mit_b0"), BANDS)
    with pytest.raises(ModelError, match=r"decoder_channels \[8, 8, 8, 8, 8, 8\]"):
        build_model(params(decoder_channels=[8] * 6), BANDS)


def published_weights(encoder: str) -> dict[str, torch.Tensor]:
    """Random weights in the layout in which those of ImageNet are published."""
    import timm
    from segmentation_models_pytorch.encoders import get_encoder

    timms = encoder.startswith("tu-")
    source = timm.create_model(encoder[3:]) if timms else get_encoder(encoder, in_channels=3, weights=None)
    return source.state_dict()


@pytest.mark.parametrize(
    ("architecture", "encoder", "bands"),
    [
        ("unet", TINY, ["B02", "B03", "B04"]),  # three bands, but not in the order of the filters
        ("unet", TINY, BANDS),
        ("deeplabv3plus", TINY, BANDS),
        ("unet", "resnet18", BANDS),
        ("unet", "resnet18", ["B08"]),
        ("unet", "tu-mobileone_s1", BANDS),  # several layers see the bands
    ],
)
def test_a_local_file_fills_the_encoder_and_gives_bands_the_filters_of_their_colour(
    tmp_path, architecture, encoder, bands
):
    path = tmp_path / "weights.safetensors"
    source = published_weights(encoder)
    save_file(source, path)
    given = params(
        architecture=architecture, encoder=encoder, encoder_weights=str(path), encoder_weights_sha256=sha256(path)
    )
    state = build_model(given, bands).state_dict()
    firsts = [name for name, tensor in source.items() if tensor.ndim == 4 and tensor.shape[1] == 3]
    assert firsts
    for name in firsts:
        red, green, blue = source[name].unbind(1)
        colours = {"B04": red, "B03": green, "B02": blue, "B08": (red + green + blue) / 3}
        expected = torch.stack([colours[band] for band in bands], 1) * 3 / len(bands)
        found = state[f"encoder.{'model.' * encoder.startswith('tu-')}{name}"]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_gray_pixels_get_the_response_that_the_pretrained_layer_gives():
    rgb = torch.randn(8, 3, 3, 3)
    gray = torch.rand(1, 1, 9, 9)
    before, after = (
        torch.nn.functional.conv2d(gray.expand(-1, weight.shape[1], -1, -1), weight)
        for weight in (rgb, filters(rgb, BANDS))
    )
    torch.testing.assert_close(after, before)


def test_a_local_pth_file_works_and_a_poisoned_one_never_runs(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(published_weights("resnet18"), path)
    build_model(params(encoder="resnet18", encoder_weights=str(path)), BANDS)

    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "poisoned"),)

    torch.save({"conv1.weight": Poison()}, path)
    for encoder in ("resnet18", TINY):
        with pytest.raises(EncoderWeightsError, match="does not hold weights of encoder"):
            build_model(params(encoder=encoder, encoder_weights=str(path)), BANDS)
    assert not (tmp_path / "poisoned").exists()


def test_local_weights_that_are_missing_wrong_or_foreign_are_refused(tmp_path):
    with pytest.raises(EncoderWeightsError, match=r"there is no file .*nothing\.pth"):
        build_model(params(encoder_weights=str(tmp_path / "nothing.pth")), BANDS)
    path = tmp_path / "weights.safetensors"
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(EncoderWeightsError, match=f"SHA-256 {sha256(path)}, but .* is {'0' * 64}"):
        build_model(params(encoder_weights=str(path), encoder_weights_sha256="0" * 64), BANDS)
    for encoder in ("resnet18", TINY):
        with pytest.raises(EncoderWeightsError, match=f"does not hold weights of encoder {encoder}"):
            build_model(params(encoder=encoder, encoder_weights=str(path)), BANDS)


@pytest.mark.parametrize("encoder", [TINY, "resnet18"])
def test_unreachable_weights_name_the_file_to_provide(encoder, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries again for 20 s
    with pytest.raises(
        EncoderWeightsError, match=r"model\.safetensors of the Hugging Face repository .*encoder_weights"
    ):
        build_model(params(encoder=encoder, encoder_weights="imagenet"), BANDS)


@pytest.mark.parametrize("weights", ["imagenet", "/nowhere/weights.pth"])
def test_without_pretraining_weights_are_neither_fetched_nor_opened(weights):
    build_model(params(encoder_weights=weights), BANDS, pretrained=False)


def test_repeated_pixels_are_those_of_nearest_upsampling():
    torch.manual_seed(0)
    network = build_model(
        ModelParams.model_validate({"encoder": "tu-mobilenetv3_small_050", "decoder_channels": [16, 16, 8, 8, 8]}),
        BANDS,
    )
    network = network.to(memory_format=torch.channels_last).eval()
    chips = torch.randn(2, 4, 64, 96).contiguous(memory_format=torch.channels_last)
    results = []
    for change in (lambda _: None, repeat_pixels):
        change(network)
        network.zero_grad()
        logits = network(chips)
        logits.square().mean().backward()
        results.append([logits.detach(), *(weight.grad.clone() for weight in network.parameters())])
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0], results[1])
