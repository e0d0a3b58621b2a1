"""The sections of `params.yaml`: each key with its default, bounds and description."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.runs import MEMBER
from cloudcover.config.secrets import refuse_secrets
from cloudcover.config.section import NotNegative, Section, Share

BAND = re.compile(r"(?!label$)[A-Za-z0-9][A-Za-z0-9_-]*")
"""File name of a band without its suffix; `label` is reserved for the label."""


def _place(text: str) -> str:
    """Expand `~`; reject braces, which Snakemake and DVC interpret as wildcards and parameters."""
    if set(text) & set("{}"):
        raise ValueError("paths must not contain braces: rename the folder, or use a symbolic link to it")
    return os.path.expanduser(text)  # noqa: PTH111  (a Path would drop the slashes of an address)


Place = Annotated[str, AfterValidator(_place)]
"""Path of a user's file or folder."""
Url = Annotated[str, AfterValidator(refuse_secrets)]
Verdict = Literal["clean", "bad"]
Tta = Literal["none", "vflip", "hflip", "flips", "d4"]
Architecture = Literal["unet", "unetplusplus", "fpn", "deeplabv3plus", "linknet", "segformer", "cloudnet"]
Logger = Literal["none", "dvclive", "tensorboard"]
Stratum = Literal["location", "year", "month", "hour", "coverage"]


class DataParams(Section):
    """Origin and format of the chips."""

    source: Literal["synthetic", "local", "azure", "s3", "http", "archive"] = Field(
        "synthetic",
        description="source of the chips (docs/data.md): synthetic | local | azure | s3 | http | archive",
    )
    path: Place | None = Field(
        None,
        description="local: folder in the challenge's layout (docs/data.md); archive: folder of the .tar.gz",
    )
    url: Url | None = Field(
        None,
        description="azure, http, archive: URL of the data set's folder; s3: s3://BUCKET/PREFIX; must not contain a "
        "signature",
    )
    endpoint: Url | None = Field(None, description="s3: URL of the service; null: Amazon S3")
    sas_file: Place | None = Field(
        None, description="azure: file with the SAS URL; the variable CLOUDCOVER_SAS_URL takes precedence"
    )
    checksums: Place | None = Field(
        None, description="archive: md5sum file, for archives other than the challenge's; or null"
    )
    splits: list[Literal["train", "test"]] = Field(
        ["train", "test"], min_length=1, description="azure, s3, http, archive: splits to fetch (train, test)"
    )
    subset: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | list[str] | str | None = Field(
        None,
        description="azure, s3, http, archive: what to fetch: a share, a number per split, or a list or file of "
        "chips and locations; null: everything",
    )
    unlabelled: Place | None = Field(
        None,
        description="folder of additional unlabelled chips (CHIP/BAND.tif), used as candidates for pseudo-labels; or "
        "null",
    )
    link: Literal["copy", "hardlink", "symlink"] = Field(
        "copy", description="local, unlabelled: how files are placed in data/raw: copy | hardlink | symlink"
    )
    bands: list[str] = Field(
        ["B02", "B03", "B04", "B08"], min_length=1, description="bands of a chip in channel order, one GeoTIFF each"
    )
    chip_size: int = Field(96, ge=32, description="height and width of a chip [pixels]")
    tile: bool = Field(
        False, description="local: cut larger images into chips of chip_size; false: reject any other size"
    )
    nodata: int = Field(0, ge=0, le=65535, description="value of pixels without data [DN]")
    offset: int = Field(
        0,
        ge=0,
        le=65535,
        description="offset to subtract on reading from files without an offset tag, such as 1000 [DN]",
    )
    chips_per_shard: int = Field(64, ge=1, description="upper bound on the mean number of chips per shard of the store")
    max_quarantined: Share = Field(
        0.02, description="largest tolerated share of unusable chips; packing fails above it [0-1]"
    )

    @model_validator(mode="after")
    def _check(self) -> DataParams:
        if self.source == "local" and not self.path:
            raise ValueError("source: local needs path, the folder that holds train_metadata.csv")
        if self.source in ("s3", "http") and not self.url:
            raise ValueError(f"source: {self.source} needs url, the address of the set (docs/data.md)")
        if self.source == "archive" and bool(self.path) == bool(self.url):
            raise ValueError("source: archive needs either path, the folder of the archives, or url")
        if self.source == "synthetic" and self.unlabelled:
            raise ValueError("source: synthetic makes its own unlabelled chips; set unlabelled: null")
        if self.source in ("local", "synthetic") and self.subset is not None:
            raise ValueError(f"source: {self.source} has no subsets, they are fetched from networks; set subset: null")
        if self.chip_size % 32:
            raise ValueError(f"chip_size {self.chip_size} is not a multiple of 32, which the encoders need")
        if odd := [band for band in self.bands if not BAND.fullmatch(band)]:
            raise ValueError(f"bands {odd} cannot be file names: use letters, digits, - and _, and not the name label")
        if len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands {self.bands} name a band twice")
        return self


class SyntheticParams(Section):
    """A synthetic data set with known true masks, a stand-in for real chips."""

    locations: int = Field(12, ge=1, description="number of locations")
    scenes: int = Field(30, ge=1, description="number of scenes, spread over the locations")
    chips: int = Field(240, ge=1, description="number of chips, spread over the scenes")
    unlabelled: Share = Field(0.03, description="share of chips without a label [0-1]")
    label_errors: Share = Field(0.145, description="share of wrong labels (in the challenge: 1,633 of 11,243) [0-1]")
    failed_scenes: Share = Field(
        0.0, description="share of scenes whose labels all belong to another image, in addition to label_errors [0-1]"
    )
    grounds: int = Field(
        1,
        ge=1,
        description="number of different ground surfaces per location; with more than one, scenes of a location "
        "differ in their land",
    )
    toa: Share = Field(
        0.0, description="share of scenes in top-of-atmosphere reflectance; the rest is surface reflectance [0-1]"
    )
    coarse: Share = Field(0.0, description="share of scenes with 30 m pixels; the rest have 10 m [0-1]")
    extremes: Share = Field(
        0.0,
        description="share of locations with snow and ice, open sea, or salt; half as many scenes each have dark, very "
        "thin, or smooth and towering clouds [0-1]",
    )


class LabelsParams(Section):
    """The policy for rejecting labels."""

    policy: Literal["auto", "human", "human_first"] = Field(
        "human_first",
        description="who rejects labels: auto (the audit) | human (config/verdicts.csv) | human_first (the audit, "
        "where there is no human verdict)",
    )
    max_suspicion: Share | None = Field(
        None,
        description="auto, human_first: the audit rejects labels above this suspicion [0-1]; null: it rejects the "
        "most suspicious labels, as many as it estimates to be wrong",
    )


class FoldsParams(Section):
    """The test part (whole locations that nothing learns from) and the split of all other chips into folds."""

    test_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of chips, in whole locations, reserved for the evaluation [0-1]; 0: none, and figures are "
        "out-of-fold",
    )
    number: int = Field(2, ge=2, description="number of folds")
    group: Literal["scene", "location", "none"] = Field(
        "scene", description="unit that is never split between folds: scene | location | none"
    )
    stratify: list[Stratum] = Field(
        ["location", "year", "month", "hour", "coverage"], description="properties that are balanced across the folds"
    )
    coverage_bins: int = Field(5, ge=1, description="number of bins for label coverage")


class InputParams(Section):
    """Conversion of digital numbers to model input."""

    scale: Literal["reflectance", "percentile"] = Field(
        "reflectance",
        description="reflectance (fixed mean and std) | percentile (per chip, 2-98 %, as in the original)",
    )
    mean: list[float] = Field(
        [0.275, 0.285, 0.286, 0.366], description="reflectance: mean of each band, in order of data.bands [reflectance]"
    )
    std: list[float] = Field(
        [0.24, 0.24, 0.25, 0.21], description="reflectance: standard deviation of each band [reflectance]"
    )


class ModelParams(Section):
    """The network architecture."""

    architecture: Architecture = Field("unet", description=f"one of {' | '.join(get_args(Architecture))}")
    encoder: str = Field(
        "tu-mobilenetv3_small_050",
        description="encoder from segmentation-models-pytorch or timm (tu-…); ignored by cloudnet",
    )
    encoder_weights: str | None = Field(
        None,
        description="null (random) | imagenet (downloaded) | lite0 (ImageNet weights of tu-tf_efficientnet_lite0 from "
        "the extra cloudcover[lite0], no download) | path of a local weight file",
    )
    encoder_weights_sha256: str | None = Field(None, description="required sha256 of a local weight file, or null")
    decoder_channels: list[int] | None = Field(
        [64, 32, 16, 16, 8], description="U-Net decoders: channels per block; null: the library's default"
    )
    border: int = Field(
        16,
        ge=0,
        description="mirrored pixels that the network adds around a chip, because zero padding causes false cloud at "
        "its border; height and width are rounded up to multiples of 32 [pixels]",
    )

    @model_validator(mode="after")
    def _check(self) -> ModelParams:
        if self.encoder_weights == "lite0" and self.encoder != "tu-tf_efficientnet_lite0":
            raise ValueError(f"encoder_weights: lite0 needs encoder: tu-tf_efficientnet_lite0, not {self.encoder}")
        return self


class TrainingParams(Section):
    """The training recipe, identical in every round."""

    seed: int = Field(
        0,
        ge=0,
        description="random seed for training only; another seed repeats the trainings on the same data and folds",
    )
    loss: Literal["lovasz", "lovasz_softmax", "bce_dice", "jaccard_focal", "cross_entropy", "bce_lovasz"] = Field(
        "bce_lovasz",
        description="lovasz (hinge) | lovasz_softmax | bce_dice | jaccard_focal | cross_entropy | bce_lovasz",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="label smoothing e: clear becomes e / 2, cloud 1 - e / 2 [0-1]"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = Field("adamw", description="adam | adamw | sgd")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate")
    min_learning_rate: float = Field(1e-5, ge=0, description="learning rate at the end of the cosine schedule")
    warmup_steps: int = Field(10, ge=0, description="optimizer steps of linear warm-up to the peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    steps: int = Field(
        120,
        ge=1,
        description="optimizer steps of every run, independent of the number of chips",
    )
    monitor: Literal["jaccard", "location_mean"] | None = Field(
        None,
        description="which weights to keep: null (the last; nothing is chosen on held-out chips) | jaccard (global) "
        "or location_mean (those of the pass with the highest validation figure; patience applies)",
    )
    patience: int = Field(10, ge=1, description="with monitor: passes without improvement before training stops")
    batch_size: int = Field(8, ge=1, description="chips per optimizer step")
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="chips per forward pass; a smaller number saves GPU memory, and gradients accumulate to "
        "batch_size; null: batch_size",
    )
    gradient_clip: float | None = Field(1.0, gt=0, description="maximum norm of the gradient, or null")
    ema_decay: float | None = Field(
        0.98, gt=0, lt=1, description="decay per step of the exponential moving average of the weights, or null"
    )
    pseudo_weight: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = Field(
        1.0,
        description="loss weight of a pseudo-labelled chip (given labels: 1); a list gives one value per round that "
        "made the label, and the last value applies to all later rounds",
    )

    doubt_weight: bool = Field(False, description="weight a given label by 1 - its suspicion in the loss")

    def weight_of_round(self, number: int) -> float:
        """Return the loss weight of a chip whose pseudo-label was made in round `number`, counted from 1."""
        if isinstance(self.pseudo_weight, float):
            return self.pseudo_weight
        return self.pseudo_weight[min(number, len(self.pseudo_weight)) - 1]


class ComputeParams(Section):
    """The hardware that networks run on; it changes results only through the order and precision of sums."""

    threads: int = Field(
        1, ge=1, description="CPU threads per training; concurrent trainings share the available cores"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto (a GPU if available) | cpu | cuda")
    devices: int = Field(1, ge=1, description="number of GPUs per training; each batch is split between them")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto (bf16 on a GPU, fp32 on a CPU) | fp32 | bf16 | fp16 (GPUs without bf16)"
    )
    compile: bool = Field(
        False,
        description="use torch.compile for training; fails with an invalid memory access on an H100 with torch 2.11",
    )
    device_cache: Literal["auto"] | bool = Field(
        "auto", description="keep all training chips in GPU memory: auto (if they fit) | true | false"
    )
    prediction_batch: int = Field(32, ge=1, description="chips per forward pass in prediction")
    logger: Logger = Field(
        "none",
        description="live learning curves in work/curves: none | dvclive | tensorboard (needs the extra of the same "
        "name)",
    )


class PseudoLabelParams(Section):
    """Pseudo-labels for chips without a label or with a rejected one."""

    pixel_confidence: float = Field(
        0.8, gt=0.5, lt=1, description="a pixel is confident if its probability p is above this or below 1 - this"
    )
    chip_confidence: Share = Field(
        0.9, description="a chip is accepted if its share of confident pixels is above this [0-1]"
    )
    uncertain_pixels: Literal["keep", "ignore"] = Field(
        "ignore", description="treatment of unconfident pixels in accepted chips: keep | ignore (255)"
    )
    quota: bool = Field(
        False,
        description="limit accepted chips that are all cloud or all clear to their ratio among the trusted labels",
    )
    targets: Literal["hard", "soft"] = Field(
        "hard", description="targets for the next training: hard (the mask, p > 0.5) | soft (the probability p itself)"
    )


class MemberParams(Section):
    """A member of the final ensemble; null inherits the value of `model`."""

    architecture: Architecture | None = Field(None, description="architecture; null: that of model")
    encoder: str | None = Field(None, description="encoder; null: that of model")
    augmentation: dict[str, float] = Field({}, description="keys of augmentation that this member overrides")

    def override_model(self, model: ModelParams) -> ModelParams:
        """Return the network parameters of this member."""
        return model.model_copy(update=self.model_dump(include={"architecture", "encoder"}, exclude_none=True))

    def override_augmentation(self, augmentation: AugmentationParams) -> AugmentationParams:
        """Return the augmentation of this member; raise `ValidationError` for invalid keys."""
        return AugmentationParams.model_validate({**augmentation.model_dump(), **self.augmentation})


class FinalParams(Section):
    """The final training, on the labels after a round."""

    labels: str = Field(
        "round3", description="labels to learn from: those after a round, or manifest.csv (no pseudo-labels)"
    )
    members: dict[Annotated[str, StringConstraints(pattern=rf"^{MEMBER}$")], MemberParams] = Field(
        {"unet": MemberParams()},  # type: ignore[call-arg]
        min_length=1,
        description="models to train, by name; architecture and encoder default to those of model",
    )


class PredictionParams(Section):
    """Test-time augmentation (TTA): the views averaged by a prediction: none | vflip | hflip | flips | d4."""

    tta: Tta = Field("vflip", description="TTA policy for the evaluation and the delivered bundle")
    judge_tta: Tta = Field("flips", description="TTA policy for the predictions that judge and replace labels")
    compare_tta: list[Tta] = Field(
        ["none", "hflip", "flips", "d4"],
        description="additional TTA policies whose Jaccard and time are compared for the final models",
    )

    @property
    def final_tta(self) -> list[Tta]:
        """All policies of the final models, beginning with `tta`."""
        return list(dict.fromkeys([self.tta, *self.compare_tta]))


class EvaluationParams(Section):
    """Settings of the evaluation."""

    threshold: float = Field(0.5, gt=0, lt=1, description="a pixel is cloud if its probability is above this")
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of locations for the 95 % intervals")
    references: list[Literal["oracle"]] = Field(
        ["oracle"],
        description="reference trainings: oracle (synthetic set only: learns from the true masks, to measure the "
        "cost of wrong labels); []: none",
    )


class CalibrationParams(Section):
    """Choices made on out-of-fold predictions, and used only if they help on scenes they were not chosen on."""

    groups: int = Field(
        5, ge=2, description="number of groups of locations; each is evaluated with what was chosen on the others"
    )
    trials: int = Field(10, ge=0, description="Optuna trials of post-processing per group; 0: no post-processing")
    chips: int | None = Field(500, ge=1, description="number of chips to choose on, spread over the scenes; null: all")
