"""Bundles: the final models of all folds in one folder, with everything needed for prediction."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cloudcover.config.sections import Tta
from cloudcover.masks.decision import InferenceSettings
from cloudcover.models.folder import CARD, WEIGHTS, ModelFolderError, load_card
from cloudcover.predict.predictor import Predictor
from cloudcover.runtime.files import atomic, read_json, remove_leftovers, write_json, write_text

BUNDLE = "bundle.json"
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""Folder name of a model in a bundle: a plain name, because a bundle may come from an untrusted source."""


class Bundle(BaseModel):
    """The card of a bundle.

    Attributes:
        models: Names of its model folders.
        tta: Test-time augmentation that the figures were measured with.
        settings: Weights of the models, temperature, threshold and post-processing.
        metrics: Figures of this bundle on the test part, against given labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[ModelName] = Field(min_length=1)
    tta: Tta
    settings: InferenceSettings
    metrics: dict[str, float]

    @model_validator(mode="after")
    def _check(self) -> Bundle:
        if sorted(self.models) != sorted(self.settings.weights):
            raise ValueError(f"there are weights for {sorted(self.settings.weights)}, but the models are {self.models}")
        return self


def write_bundle(
    folders: Sequence[Path],
    tta: Tta,
    settings: InferenceSettings,
    out: Path,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Copy model folders into a bundle and write its card; `bundle.json` is written last.

    Args:
        folders: Model folders `models/final/<member>/fold<k>`.
        tta: Test-time augmentation.
        settings: Choices made on held-out scenes, with a weight for each model by the name `<member>-fold<k>`.
        out: Folder of the bundle.
        metrics: Figures of this bundle; None before its evaluation.

    Raises:
        ValueError: The settings belong to other models.
    """
    (out / BUNDLE).unlink(missing_ok=True)
    names = []
    for folder in folders:
        name = f"{folder.parent.name}-{folder.name}"
        remove_leftovers(out / name)
        for part in (WEIGHTS, CARD):
            with atomic(out / name / part) as copy:
                shutil.copyfile(folder / part, copy)
        names.append(name)
    bundle = Bundle(models=names, tta=tta, settings=settings, metrics={k: float(v) for k, v in (metrics or {}).items()})
    write_text(out / "README.md", _card(bundle, folders[0]))
    write_json(out / BUNDLE, bundle.model_dump(mode="json"))


def load_bundle(
    folder: Path,
    device: str = "auto",
    precision: str = "auto",
    batch: int = 32,
    threshold: float | None = None,
) -> Predictor:
    """Load a bundle or a single model folder as a predictor with its own policy and settings.

    Args:
        folder: Bundle or model folder.
        device: As for `Predictor`.
        precision: As for `Predictor`.
        batch: As for `Predictor`.
        threshold: Threshold that replaces that of the settings; None: no replacement.

    Raises:
        ModelFolderError: The folder is neither, or a part of it is missing or corrupt.
    """
    if not (folder / BUNDLE).exists():
        if not (folder / CARD).exists():
            raise ModelFolderError(
                f"{folder} contains neither {BUNDLE} nor {CARD}: it is not a bundle and not a model folder"
            )
        alone = None if threshold is None else InferenceSettings(weights={folder.name: 1.0}, threshold=threshold)
        return Predictor([folder], "none", device, precision, batch, alone)
    bundle = read_bundle(folder)
    models = [folder / name for name in bundle.models]
    settings = bundle.settings
    if threshold is not None:
        settings = InferenceSettings.model_validate({**dict(settings), "threshold": threshold})
    return Predictor(models, bundle.tta, device, precision, batch, settings)


def read_bundle(folder: Path) -> Bundle:
    """Read the card of a bundle.

    Raises:
        ModelFolderError: It is not a card, or names of models would lead out of the bundle.
    """
    try:
        return Bundle.model_validate(read_json(folder / BUNDLE))
    except ValueError as error:
        raise ModelFolderError(f"{folder / BUNDLE} is not a bundle's card: {error}") from None


def _steps(settings: InferenceSettings) -> str:
    """Describe the post-processing in words."""
    steps = settings.postprocess.model_dump(exclude_defaults=True)
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in steps.items()) or "none"


def _card(bundle: Bundle, example: Path) -> str:
    """Write a model card for readers (Mitchell et al. 2019), from the cards of the run."""
    card = load_card(example)
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in sorted(bundle.metrics.items()))
    weights = "\n".join(f"| `{name}` | {value:.4f} |" for name, value in bundle.settings.weights.items())
    return f"""# Cloud mask bundle

{len(bundle.models)} models, `{card.architecture}` with `{card.encoder}` (first member), trained on chips of
{card.chip_size} x {card.chip_size} pixels with the bands {", ".join(card.bands)} (reflectance x 10,000).

Output: the weighted mean probability of cloud over the models and the views of `{bundle.tta}`, its logit divided by a
temperature of {bundle.settings.temperature:.3g}; cloud above {bundle.settings.threshold:.3g}.
Post-processing: {_steps(bundle.settings)}.

    cloudcover predict --model FOLDER_OF_THIS_FILE CHIPS --out MASKS

## Figures on chips that no model has seen, by given labels

| figure | value |
|---|---|
{rows}

## Weights of the models

| model | weight |
|---|---|
{weights}

## Limits

The models know the sensor, bands and scaling of their training chips only. Sentinel-2 products from processing baseline
04.00 on carry an offset of 1000 DN that must be subtracted first. Bright ground, snow and sun glint are the usual
errors.
"""
