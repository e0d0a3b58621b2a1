"""A trained model on disk, `model.safetensors` and `model.json`, which can be rebuilt without the workflow.

The weights are never pickled, so an untrusted file cannot run code. The card is written last and contains the SHA-256
of the weights. A folder with mismatched parts is refused before anything is loaded.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from cloudcover.config.sections import Architecture, DataParams, InputParams, ModelParams
from cloudcover.models.build import ModelError, build_model
from cloudcover.runtime.files import atomic, read_json, sha256, write_json

WEIGHTS = "model.safetensors"
CARD = "model.json"
LARGEST_SIDE = 4096
"""Largest training chip and border of a model [pixels]: a card from elsewhere must not ask for all memory."""
WIDEST = 4096
"""Largest number of channels of a decoder's block."""
RESOLUTION_M = 10.0
"""Pixel size of the chips that models are trained on [m]."""


class ModelFolderError(ValueError):
    """A model folder that cannot be used: a part is missing, corrupt, or belongs to another model."""


class ModelCard(BaseModel):
    """The description of a model: architecture, input and provenance.

    Attributes:
        architecture: Name of the architecture, see `ModelParams`.
        encoder: Name of the encoder.
        decoder_channels: Channels of the decoder's blocks, or None for the library's default.
        border: Mirrored pixels that the network adds on each side of a chip; cards without this key mean 0.
        bands: Names of the input bands, in order.
        nodata: Value of pixels without data [DN].
        input: Conversion of digital numbers to the network's input.
        chip_size: Height and width of the training chips [pixels].
        threshold: Probability above which a pixel is cloud.
        temperature: Divisor of the logits before the sigmoid.
        fingerprint: Hash of everything that determined the training.
        metrics: Validation loss, global Jaccard and its mean over locations, on the held-out fold in the kept epoch.
        versions: Versions of the libraries used in training; filled in by `save_model`.
        weights_sha256: SHA-256 of the weight file; filled in by `save_model`.
        run: Name of the training run, such as `round1` or `final/unet`.
        fold: Fold that the model has not seen.
        seed: Random seed of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    architecture: Architecture
    encoder: str
    decoder_channels: list[Annotated[int, Field(ge=1, le=WIDEST)]] | None
    border: int = Field(default=0, ge=0, le=LARGEST_SIDE)
    bands: list[str] = Field(min_length=1)
    nodata: int
    input: InputParams
    chip_size: int = Field(le=LARGEST_SIDE)
    threshold: float = Field(default=0.5, gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)
    fingerprint: str
    metrics: dict[str, float] = {}
    versions: dict[str, str] = {}
    weights_sha256: str = ""
    run: str
    fold: int
    seed: int

    @model_validator(mode="after")
    def _check(self) -> ModelCard:
        try:
            self.data_params()
            self.model_params()
        except ValidationError as error:
            raise ValueError("; ".join(e["msg"] for e in error.errors())) from None
        for name, values in (("mean", self.input.mean), ("std", self.input.std)):
            if len(values) != len(self.bands):
                raise ValueError(f"input.{name} has {len(values)} values for {len(self.bands)} bands")
        if min(self.input.std) <= 0:
            raise ValueError(f"input.std must be above 0, got {self.input.std}")
        return self

    def model_params(self) -> ModelParams:
        """Return the network's parameters, without pretrained weights."""
        return ModelParams(
            architecture=self.architecture,
            encoder=self.encoder,
            encoder_weights=None,
            encoder_weights_sha256=None,
            decoder_channels=self.decoder_channels,
            border=self.border,
        )

    def data_params(self) -> DataParams:
        """Return the parameters of the training chips that the input scale depends on."""
        return DataParams.model_validate({"bands": self.bands, "nodata": self.nodata, "chip_size": self.chip_size})


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine a model's weights."""
    names = ("cloudcover", "torch", "segmentation-models-pytorch", "timm")
    return {name: version(name) for name in names}


def save_model(folder: Path, module: nn.Module, card: ModelCard) -> None:
    """Write the weights and then the card, each atomically; the folder is valid only with both.

    Args:
        folder: Folder to write; created if it does not exist.
        module: Result of `build_model`.
        card: Card; its `weights_sha256` and `versions` are filled in.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with atomic(folder / WEIGHTS) as part:
        part.write_bytes(save(weights))
    filled = card.model_copy(
        update={"weights_sha256": sha256(folder / WEIGHTS), "versions": card.versions or library_versions()}
    )
    write_json(folder / CARD, filled.model_dump(mode="json"))


def load_card(folder: Path) -> ModelCard:
    """Read and check the card alone, without the weights.

    Raises:
        ModelFolderError: It is missing, or is not a card.
    """
    path = folder / CARD
    try:
        return ModelCard.model_validate(read_json(path))
    except FileNotFoundError:
        raise ModelFolderError(f"{folder} is not a model folder: {CARD} is missing") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelFolderError(f"{path} is not a model card: {wrong}") from None
    except ValueError as error:
        raise ModelFolderError(str(error)) from None


def load_model(folder: Path, device: str = "cpu") -> tuple[nn.Module, ModelCard]:
    """Rebuild a model for prediction (`eval`), without internet access.

    Args:
        folder: Folder written by `save_model`.
        device: Device for the weights.

    Raises:
        ModelFolderError: A part is missing or corrupt, or the weights do not belong to the card.
    """
    folder = Path(folder)
    card = load_card(folder)
    path = folder / WEIGHTS
    if not path.exists():
        raise ModelFolderError(f"{folder} is not a complete model folder: {WEIGHTS} is missing")
    if (found := sha256(path)) != card.weights_sha256:
        raise ModelFolderError(
            f"{path} has SHA-256 {found}, but {CARD} was written for {card.weights_sha256}: "
            "the file is corrupt or belongs to another model"
        )
    try:
        module = build_model(card.model_params(), card.bands, pretrained=False)
        module.load_state_dict(load_file(path, device="cpu"), strict=True)
    except (SafetensorError, RuntimeError, ModelError) as error:
        raise ModelFolderError(f"{folder} cannot be loaded: {error}") from error
    return module.to(device).eval(), card
