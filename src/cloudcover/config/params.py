"""The parameters of a run: one model, from which the comments of `params.yaml`, the schema and the reference are made.

Every key that changes a result is here and nothing else. Unknown keys are refused at every level, with the nearest
name.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cloudcover.config.secrets import redact, refuse_secrets

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Url = Annotated[str, AfterValidator(refuse_secrets)]
Verdict = Literal["clean", "bad"]
Tta = Literal["none", "vflip", "hflip", "flips", "d4"]
Architecture = Literal["unet", "unetplusplus", "fpn", "deeplabv3plus", "linknet", "segformer", "cloudnet"]
Stratum = Literal["location", "year", "month", "hour", "coverage"]


class ParamsError(ValueError):
    """The parameters cannot be used; the message names each key, what is wrong and what to write instead."""


class Section(BaseModel):
    """A section of `params.yaml`: unknown keys are refused, and values are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataParams(Section):
    """Where the chips come from and what they look like."""

    source: Literal["synthetic", "local", "azure", "s3", "http", "archive"] = Field(
        "synthetic",
        description="where the chips come from (docs/data.md): synthetic | local | azure | s3 | http | archive",
    )
    path: str | None = Field(
        None,
        description="local: folder in the challenge's layout (docs/data.md); archive: folder of the .tar.gz",
    )
    url: Url | None = Field(
        None, description="azure, http, archive: address of the set's folder; s3: s3://BUCKET/PREFIX; never a signature"
    )
    endpoint: Url | None = Field(None, description="s3: address of the service, or null: Amazon's")
    sas_file: str | None = Field(
        None, description="azure: file that holds the SAS URL; the variable CLOUDCOVER_SAS_URL goes first"
    )
    checksums: str | None = Field(
        None, description="archive: file by md5sum for archives that are not the challenge's, or null"
    )
    splits: list[Literal["train", "test"]] = Field(
        ["train", "test"], min_length=1, description="azure, s3, http, archive: splits to fetch, of train and test"
    )
    subset: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | list[str] | str | None = Field(
        None,
        description="azure, s3, http, archive: share, number per split, list or file of chips and locations, null: all",
    )
    unlabelled: str | None = Field(
        None, description="folder of further chips without labels, CHIP/BAND.tif: candidates for pseudo-labels; or null"
    )
    link: Literal["copy", "hardlink", "symlink"] = Field(
        "copy", description="local, unlabelled: how files enter data/raw: copy | hardlink | symlink"
    )
    bands: list[str] = Field(
        ["B02", "B03", "B04", "B08"], min_length=1, description="bands of a chip, one GeoTIFF each, in this order"
    )
    chip_size: int = Field(96, ge=32, description="height and width of a chip [pixels]")
    tile: bool = Field(
        False, description="local: cut larger images into chips of chip_size; false: another size is an error"
    )
    nodata: int = Field(0, ge=0, le=65535, description="value of pixels without data [DN]")
    offset: int = Field(
        0,
        ge=0,
        le=65535,
        description="what was added to the DN of files without an offset tag, such as 1000; subtracted on reading [DN]",
    )
    chips_per_shard: int = Field(64, ge=1, description="upper bound on the mean number of chips in a file of the store")
    max_quarantined: Share = Field(0.02, description="share of chips that may be unusable before packing fails [0-1]")

    @model_validator(mode="after")
    def _check(self) -> DataParams:
        if self.source == "local" and not self.path:
            raise ValueError("source: local needs path, the folder that holds train_metadata.csv")
        if self.source in ("s3", "http") and not self.url:
            raise ValueError(f"source: {self.source} needs url, the address of the set (docs/data.md)")
        if self.source == "archive" and bool(self.path) == bool(self.url):
            raise ValueError("source: archive needs path, the folder of the archives, or url, but not both")
        if self.source == "synthetic" and self.unlabelled:
            raise ValueError("source: synthetic knows the truth of all its chips and takes no unlabelled ones")
        if self.chip_size % 32:
            raise ValueError(f"chip_size {self.chip_size} is not a multiple of 32, which the encoders need")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands {self.bands} name a band twice")
        return self


class SyntheticParams(Section):
    """The synthetic set: a stand-in whose true masks are known."""

    locations: int = Field(12, ge=1, description="number of locations")
    scenes: int = Field(30, ge=1, description="number of scenes, spread over the locations")
    chips: int = Field(240, ge=1, description="number of chips, spread over the scenes")
    unlabelled: Share = Field(0.03, description="share of chips without a label [0-1]")
    label_errors: Share = Field(
        0.145, description="share of labels that are wrong (the challenge's: 1,633 of 11,243) [0-1]"
    )


class AuditParams(Section):
    """The search for wrong labels: an out-of-fold model beside evidence that needs no model."""

    folds: int = Field(2, ge=2, description="scene-disjoint folds of the audit's own network")
    epochs: int = Field(8, ge=1, description="epochs of the audit's own network, in each of two passes")


class LabelsParams(Section):
    """Who decides which labels are rejected."""

    policy: Literal["auto", "human", "human_first"] = Field(
        "human_first",
        description="auto (audit) | human (config/verdicts.csv) | human_first (audit where no human verdict)",
    )
    max_suspicion: Share | None = Field(
        None,
        description="auto: labels more suspicious than this are rejected [0-1]; null: as many as the audit estimates",
    )


class FoldsParams(Section):
    """The split into folds."""

    number: int = Field(2, ge=2, description="number of folds")
    group: Literal["scene", "location", "none"] = Field(
        "scene", description="what a fold never splits: scene | location | none"
    )
    stratify: list[Stratum] = Field(
        ["location", "year", "month", "hour", "coverage"], description="what is spread evenly over the folds"
    )
    coverage_bins: int = Field(5, ge=1, description="number of bins of label coverage")


class InputParams(Section):
    """How digital numbers become the numbers that a model sees."""

    scale: Literal["reflectance", "percentile"] = Field(
        "reflectance", description="reflectance (fixed mean and std) | percentile (per chip, 2-98 %, the seed's)"
    )
    mean: list[float] = Field(
        [0.275, 0.285, 0.286, 0.366], description="reflectance: mean of each band, in order of data.bands [reflectance]"
    )
    std: list[float] = Field(
        [0.24, 0.24, 0.25, 0.21], description="reflectance: standard deviation of each band [reflectance]"
    )


class ModelParams(Section):
    """The network."""

    architecture: Architecture = Field("unet", description=f"one of {' | '.join(get_args(Architecture))}")
    encoder: str = Field("tu-mobilenetv3_small_050", description="any smp or timm (tu-…) encoder; cloudnet has none")
    encoder_weights: str | None = Field(
        None,
        description="null (random) | imagenet (downloaded) | lite0 (ImageNet weights of tu-tf_efficientnet_lite0 from "
        "the extra cloudcover[lite0], no download) | path of a local weight file",
    )
    encoder_weights_sha256: str | None = Field(None, description="sha256 that a local weight file must have, or null")
    decoder_channels: list[int] | None = Field(
        [64, 32, 16, 16, 8], description="U-Net decoders: channels of each block; null: the library's own"
    )

    @model_validator(mode="after")
    def _check(self) -> ModelParams:
        if self.encoder_weights == "lite0" and self.encoder != "tu-tf_efficientnet_lite0":
            raise ValueError(f"encoder_weights: lite0 needs encoder: tu-tf_efficientnet_lite0, not {self.encoder}")
        return self


class TrainingParams(Section):
    """The training recipe of every round."""

    loss: Literal["lovasz", "lovasz_softmax", "bce_dice", "jaccard_focal", "cross_entropy", "bce_lovasz"] = Field(
        "bce_lovasz",
        description="lovasz (hinge) | lovasz_softmax | bce_dice | jaccard_focal | cross_entropy | bce_lovasz",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share e of label smoothing: clear becomes e / 2, cloud 1 - e / 2 [0-1]"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adamw", description="adam | adamw | sgd")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate")
    min_learning_rate: float = Field(1e-5, ge=0, description="learning rate at the end of the cosine")
    warmup_steps: int = Field(10, ge=0, description="optimizer steps from 0 to the peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    epochs: int = Field(8, ge=1, description="longest training [epochs]")
    patience: int = Field(10, ge=1, description="epochs without a better validation Jaccard before training stops")
    monitor: Literal["jaccard", "location_mean"] = Field(
        "jaccard", description="validation figure of the epoch that is kept: jaccard (global) | location_mean"
    )
    batch_size: int = Field(8, ge=1, description="chips per optimizer step")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="chips per forward pass, for small GPUs; gradients add up to batch_size; null: batch_size",
    )
    gradient_clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient, or null")
    ema_decay: float | None = Field(
        0.98, gt=0, lt=1, description="decay of the exponential moving average of the weights per step, or null"
    )
    pseudo_weight: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = Field(
        1.0,
        description="weight of a pseudo-labelled chip in the loss (a human label: 1); a list: one for each round that "
        "made it, the last for all later rounds",
    )

    def weight_of_round(self, number: int) -> float:
        """Weight of a chip whose pseudo-label was made in round `number`, from 1."""
        if isinstance(self.pseudo_weight, float):
            return self.pseudo_weight
        return self.pseudo_weight[min(number, len(self.pseudo_weight)) - 1]


class AugmentationParams(Section):
    """Random changes of training batches."""

    hflip: Share = Field(0.5, description="probability of a left-right flip [0-1]")
    vflip: Share = Field(0.5, description="probability of an up-down flip [0-1]")
    rotate90: Share = Field(0.0, description="probability of a turn by 90, 180 or 270 degrees [0-1]")
    d4: Share = Field(0.0, description="probability of one of the square's eight symmetries, drawn evenly [0-1]")
    affine: Share = Field(0.0, description="probability of a rotation and zoom about the centre [0-1]")
    rotation: float = Field(45.0, ge=0, le=180, description="affine: largest rotation either way [degrees]")
    zoom: float = Field(1.4, ge=1, description="affine: largest magnification; the smallest is 1 / zoom")
    brightness_contrast: Share = Field(
        0.0, description="probability of a change of brightness and contrast, drawn for each band [0-1]"
    )
    brightness: Share = Field(
        0.2, description="brightness_contrast: largest change of a band's mean, as a share of it [0-1]"
    )
    contrast: Share = Field(
        0.2, description="brightness_contrast: largest change of the distance from the mean, as a share of it [0-1]"
    )
    mosaic: Share = Field(0.0, description="probability that four chips meet at a random point [0-1]")
    cutmix: Share = Field(0.0, description="probability that a rectangle comes from another chip [0-1]")
    chessmix: Share = Field(
        0.0, description="probability that every second square of a chessboard comes from another chip [0-1]"
    )
    chessmix_squares: int = Field(4, ge=2, description="chessmix: squares along a side")
    cloud_paste: Share = Field(0.0, description="probability that another chip's clouds are pasted, all bands [0-1]")
    crop_size: int | None = Field(
        None, ge=32, multiple_of=32, description="height and width of the random window learnt from [pixels], null: all"
    )
    multi_resolution: Share = Field(
        0.0, description="probability that a batch is resampled to another resolution [0-1]"
    )
    resolutions: list[Annotated[float, Field(gt=0, le=4)]] = Field(
        [0.75, 1.25],
        min_length=1,
        description="multi_resolution: factors to draw from; sizes are rounded to multiples of 32 pixels",
    )

    @property
    def mixes(self) -> bool:
        """Whether chips may be mixed with each other."""
        return max(self.mosaic, self.cutmix, self.chessmix, self.cloud_paste) > 0


class ComputeParams(Section):
    """What the networks run on; it changes results within rounding."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto (a GPU if there is one) | cpu | cuda")
    devices: int = Field(1, ge=1, description="GPUs that train one model together; they share each batch")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16 | fp16 (GPUs without bf16)"
    )
    compile: bool = Field(False, description="torch.compile, worth its start-up time on long GPU runs")
    prediction_batch: int = Field(32, ge=1, description="chips per forward pass in prediction")


class PseudoLabelParams(Section):
    """Pseudo-labels for chips whose label was rejected or that have none."""

    rounds: int = Field(3, ge=1, description="training rounds, each followed by pseudo-labelling")
    pixel_confidence: float = Field(
        0.8, gt=0.5, lt=1, description="a pixel is confident at p above this or below 1 - this"
    )
    chip_confidence: Share = Field(0.9, description="a chip is accepted above this share of confident pixels [0-1]")
    uncertain_pixels: Literal["keep", "ignore"] = Field(
        "ignore", description="pixels that are not confident in accepted chips: keep | ignore (255)"
    )
    targets: Literal["hard", "soft"] = Field(
        "hard", description="what students learn from: hard (the mask, p > 0.5) | soft (the probability p itself)"
    )
    tta: Tta = Field("d4", description="views that the teachers average: none | vflip | hflip | flips | d4")


class MemberParams(Section):
    """A member of the final ensemble; a null takes the value of `model`."""

    architecture: Architecture | None = Field(None, description="architecture, or null: that of model")
    encoder: str | None = Field(None, description="encoder, or null: that of model")
    augmentation: dict[str, float] = Field({}, description="keys of augmentation that differ for this member")

    def override_model(self, model: ModelParams) -> ModelParams:
        """The network of this member."""
        return model.model_copy(update=self.model_dump(include={"architecture", "encoder"}, exclude_none=True))

    def override_augmentation(self, augmentation: AugmentationParams) -> AugmentationParams:
        """The augmentation of this member; raises `ValidationError`."""
        return AugmentationParams.model_validate({**augmentation.model_dump(), **self.augmentation})


class FinalParams(Section):
    """The final training, on clean labels and the last round's pseudo-labels."""

    members: dict[str, MemberParams] = Field(
        {"unet": MemberParams()},  # type: ignore[call-arg]
        min_length=1,
        description="models to train, by name; architecture and encoder override those of model",
    )


class EvaluationParams(Section):
    """The evaluation on out-of-fold predictions."""

    tta: list[Tta] = Field(
        ["none", "vflip"], min_length=1, description="policies to compare; masks are made with the last"
    )
    compare_tta: list[Tta] = Field(
        ["none", "vflip", "hflip", "flips", "d4"],
        description="policies by which the final models are judged too, with their time",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="a pixel is cloud at a probability above this")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of locations for the 95 % interval")
    oracle: bool = Field(
        True, description="synthetic: also train on the true masks, which tells how much the wrong labels cost"
    )

    @property
    def final_tta(self) -> list[Tta]:
        """All policies of the final models, those of `tta` first."""
        return list(dict.fromkeys([*self.tta, *self.compare_tta]))


class CalibrationParams(Section):
    """What is chosen on out-of-fold predictions, and used only if it helps on scenes that it was not chosen on."""

    groups: int = Field(5, ge=2, description="groups of locations; each is judged by what was chosen on the others")
    trials: int = Field(10, ge=0, description="post-processings that Optuna tries for each group; 0: none")
    chips: int | None = Field(500, ge=1, description="chips to choose on, spread over the scenes; null: all")


class Params(Section):
    """All parameters, a section per subject."""

    seed: int = Field(0, ge=0, description="of everything random; folds and rounds derive their own from it")
    data: DataParams = Field(default_factory=lambda: DataParams())  # type: ignore[call-arg]
    synthetic: SyntheticParams = Field(default_factory=lambda: SyntheticParams())  # type: ignore[call-arg]
    audit: AuditParams = Field(default_factory=lambda: AuditParams())  # type: ignore[call-arg]
    labels: LabelsParams = Field(default_factory=lambda: LabelsParams())  # type: ignore[call-arg]
    folds: FoldsParams = Field(default_factory=lambda: FoldsParams())  # type: ignore[call-arg]
    input: InputParams = Field(default_factory=lambda: InputParams())  # type: ignore[call-arg]
    model: ModelParams = Field(default_factory=lambda: ModelParams())  # type: ignore[call-arg]
    training: TrainingParams = Field(default_factory=lambda: TrainingParams())  # type: ignore[call-arg]
    augmentation: AugmentationParams = Field(default_factory=lambda: AugmentationParams())  # type: ignore[call-arg]
    compute: ComputeParams = Field(default_factory=lambda: ComputeParams())  # type: ignore[call-arg]
    pseudo_labels: PseudoLabelParams = Field(default_factory=lambda: PseudoLabelParams())  # type: ignore[call-arg]
    final: FinalParams = Field(default_factory=lambda: FinalParams())  # type: ignore[call-arg]
    evaluation: EvaluationParams = Field(default_factory=lambda: EvaluationParams())  # type: ignore[call-arg]
    calibration: CalibrationParams = Field(default_factory=lambda: CalibrationParams())  # type: ignore[call-arg]

    @model_validator(mode="after")
    def _check(self) -> Params:
        for name in ("mean", "std"):
            values = getattr(self.input, name)
            if len(values) != len(self.data.bands):
                raise ValueError(
                    f"input.{name} has {len(values)} values for {len(self.data.bands)} bands of data.bands"
                )
        if (self.augmentation.crop_size or 0) > self.data.chip_size:
            raise ValueError(
                f"augmentation.crop_size {self.augmentation.crop_size} is larger than data.chip_size "
                f"{self.data.chip_size}"
            )
        for name, member in self.final.members.items():
            try:
                member.override_augmentation(self.augmentation)
            except ValidationError as error:
                wrong = [_explain({**e, "loc": ("augmentation", *e["loc"])}) for e in error.errors()]
                raise ValueError(f"final.members.{name}: {'; '.join(wrong)}") from None
        return self


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at `path` (without its last part)."""
    model: type[BaseModel] = Params
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        if field is None:
            return list(MemberParams.model_fields)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
        else:
            return list(MemberParams.model_fields)
    return list(model.model_fields)


def _explain(error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"])) or "params"
    if error["type"] == "extra_forbidden":
        options = _known_keys(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), options, n=1)
        return f"{key}: unknown key{f'; did you mean {near[0]}?' if near else ''} (keys here: {', '.join(options)})"
    if error["type"] == "literal_error":
        options = [o.strip(" '") for o in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(str(error["input"]), options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: {error['input']!r} is not an option{hint} (options: {', '.join(options)})"
    return f"{key}: {error['msg']} (got {error['input']!r})" if error["loc"] else error["msg"]


def validate(values: Any, origin: str = "params") -> Params:
    """Checks a mapping against the model.

    Args:
        values: nested mapping as read from YAML.
        origin: what to call it in messages.

    Raises:
        ParamsError: names each wrong key, the nearest name and the options.
    """
    try:
        params = Params.model_validate(values or {})
    except ValidationError as error:
        lines = [f"  {redact(_explain(e))}" for e in error.errors()]
        raise ParamsError(f"{origin} cannot be used:\n" + "\n".join(lines)) from None
    _check_encoders(params, origin)
    return params


def _check_encoders(params: Params, origin: str) -> None:
    from cloudcover.config.encoders import unknown_encoder

    names = {"model.encoder": params.model.encoder}
    names |= {f"final.members.{k}.encoder": m.encoder for k, m in params.final.members.items() if m.encoder}
    wrong = [f"  {key}: {problem}" for key, name in names.items() if (problem := unknown_encoder(name))]
    if wrong:
        raise ParamsError(f"{origin} cannot be used:\n" + "\n".join(wrong))


def load(path: Path | str = "params.yaml") -> Params:
    """Reads and checks a YAML file of parameters.

    Raises:
        ParamsError: the file is not YAML, or `validate` refuses it.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    return validate(values, str(path))


def sections(values: dict[str, Any]) -> Any:
    """The sections that a rule was given, typed: `sections({"seed": 0, "data": {…}}).data.bands`.

    A section that the rule does not declare is absent, so that no script can use a value that would not make it stale.
    """
    full = Params.model_validate(values)
    return SimpleNamespace(**{name: getattr(full, name) for name in values})
