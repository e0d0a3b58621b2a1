"""The parameter model of a run: the source of the comments in `params.yaml`, the schema and the reference.

The model holds every key that changes a result, and nothing else. It rejects unknown keys at every level and suggests
the nearest name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cloudcover.config.augmentation import AugmentationParams
from cloudcover.config.encoders import unknown_encoder
from cloudcover.config.runs import MANIFEST, ROUND, chain
from cloudcover.config.secrets import redact
from cloudcover.config.section import Section
from cloudcover.config.sections import (
    CalibrationParams,
    ComputeParams,
    DataParams,
    EvaluationParams,
    FinalParams,
    FoldsParams,
    InputParams,
    LabelsParams,
    MemberParams,
    ModelParams,
    PredictionParams,
    PseudoLabelParams,
    SyntheticParams,
    TrainingParams,
)

RENAMED = {
    "training.best": "training.monitor",
    "pseudo_labels.rounds": "rounds",
    "evaluation.oracle": "evaluation.references",
    "choice": "calibration",
    "evaluation.tta": "prediction.tta",
    "evaluation.compare_tta": "prediction.compare_tta",
    "pseudo_labels.tta": "prediction.judge_tta",
}
"""Renamed keys and sections: old name -> current name."""

REMOVED = {
    "audit": "the audit uses the out-of-fold predictions of the baseline and trains no network of its own",
    "training.epochs": "every run takes the same number of optimizer steps, training.steps",
}
"""Keys and sections removed without a replacement, and why."""


class ParamsError(ValueError):
    """Unusable parameters; the message names each key, what is wrong with it and what to write instead."""


class Params(Section):
    """All parameters, one section per subject."""

    seed: int = Field(0, ge=0, description="global random seed; each fold and round derives its own from it")
    rounds: dict[Annotated[str, StringConstraints(pattern=rf"^{ROUND}$")], str] = Field(
        chain(3),
        min_length=1,
        description="training rounds in order, each with the labels in data/labels that it learns from: "
        "manifest.csv, or those after an earlier round",
    )
    data: DataParams = Field(default_factory=lambda: DataParams())  # type: ignore[call-arg]
    synthetic: SyntheticParams = Field(default_factory=lambda: SyntheticParams())  # type: ignore[call-arg]
    labels: LabelsParams = Field(default_factory=lambda: LabelsParams())  # type: ignore[call-arg]
    folds: FoldsParams = Field(default_factory=lambda: FoldsParams())  # type: ignore[call-arg]
    input: InputParams = Field(default_factory=lambda: InputParams())  # type: ignore[call-arg]
    model: ModelParams = Field(default_factory=lambda: ModelParams())  # type: ignore[call-arg]
    training: TrainingParams = Field(default_factory=lambda: TrainingParams())  # type: ignore[call-arg]
    augmentation: AugmentationParams = Field(default_factory=lambda: AugmentationParams())  # type: ignore[call-arg]
    compute: ComputeParams = Field(default_factory=lambda: ComputeParams())  # type: ignore[call-arg]
    prediction: PredictionParams = Field(default_factory=lambda: PredictionParams())  # type: ignore[call-arg]
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
        if min(self.input.std) <= 0:
            raise ValueError(f"input.std divides the reflectance and must be above 0, got {self.input.std}")
        if (self.augmentation.crop_size or 0) > self.data.chip_size:
            raise ValueError(
                f"augmentation.crop_size {self.augmentation.crop_size} is larger than data.chip_size "
                f"{self.data.chip_size}"
            )
        for number, (name, labels) in enumerate(self.rounds.items()):
            if labels not in (options := [MANIFEST, *list(self.rounds)[:number]]):
                raise ValueError(f"rounds.{name}: {labels!r} is neither {MANIFEST} nor an earlier round ({options})")
        if self.final.labels not in (options := [MANIFEST, *self.rounds]):
            raise ValueError(f"final.labels: {self.final.labels!r} is not one of the available labels: {options}")
        if self.evaluation.references and self.data.source != "synthetic":
            raise ValueError(
                f"evaluation.references: {self.evaluation.references} need the true masks of a synthetic set, which "
                f"data.source: {self.data.source} does not have; set evaluation.references: []"
            )
        for name, member in self.final.members.items():
            try:
                member.override_augmentation(self.augmentation)
            except ValidationError as error:
                wrong = [_explain({**e, "loc": ("augmentation", *e["loc"])}) for e in error.errors()]
                raise ValueError(f"final.members.{name}: {'; '.join(wrong)}") from None
        return self


def _known_keys(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section that contains `path`."""
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
        if key in RENAMED:
            return f"{key}: renamed to {RENAMED[key]}"
        if key in REMOVED:
            return f"{key}: no longer used, remove it; {REMOVED[key]}"
        options = _known_keys(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), options, n=1)
        return f"{key}: unknown key{f'; did you mean {near[0]}?' if near else ''} (keys here: {', '.join(options)})"
    if error["type"] == "literal_error":
        options = [o.strip(" '") for o in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(str(error["input"]), options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}: {error['input']!r} is not an option{hint} (options: {', '.join(options)})"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message} (got {error['input']!r})" if error["loc"] else message


def validate(values: Any, origin: str = "params") -> Params:
    """Check a mapping against the model and fill in defaults for missing keys.

    Args:
        values: Nested mapping as read from YAML, or None for an empty file.
        origin: Name of the source for messages, such as the path of the file.

    Raises:
        ParamsError: Names each wrong key, with the nearest name and the options.
    """
    if values is not None and not isinstance(values, dict):
        raise _refusal(origin, [f"expected a mapping of sections (data:, training:, ...), got {values!r:.80}"])
    try:
        params = Params.model_validate(values or {})
    except ValidationError as error:
        raise _refusal(origin, [_explain(e) for e in error.errors()]) from None
    if wrong := _unknown_encoders(params):
        raise _refusal(origin, wrong)
    return params


def _refusal(origin: str, problems: list[str]) -> ParamsError:
    return ParamsError("\n".join([f"{origin} cannot be used:", *(f"  {redact(problem)}" for problem in problems)]))


def _unknown_encoders(params: Params) -> list[str]:
    names = {"model.encoder": params.model.encoder}
    names |= {f"final.members.{k}.encoder": m.encoder for k, m in params.final.members.items() if m.encoder}
    return [f"{key}: {problem}" for key, name in names.items() if (problem := unknown_encoder(name))]


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check a YAML file of parameters.

    Raises:
        ParamsError: The file is not valid YAML, contains a key twice, or is rejected by `validate`.
    """
    try:
        refuse_duplicate_keys(path)
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not UTF-8 text: {error}") from None
    except ParamsError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date or number that cannot be one
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    return validate(values, str(path))


def refuse_duplicate_keys(path: Path | str) -> None:
    """Reject a YAML file that contains a key twice: Snakemake would use the last value, and DVC would fail.

    Raises:
        ParamsError: Names each such key with both lines.
    """
    root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if wrong := list(_duplicates(root, ())):
        raise _refusal(str(path), wrong)


def _duplicates(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            yield f"{'.'.join([*path, name])}: appears twice, on lines {lines[name]} and {line}; remove one of them"
        lines[name] = line
        yield from _duplicates(value, (*path, name))


def pick(params: Params, names: Iterable[str]) -> dict[str, Any]:
    """Select parts of the parameters as JSON values: whole sections, `model`, or single keys such as `data.nodata`."""
    values, picked = params.model_dump(mode="json"), dict[str, Any]()
    for name in names:
        section, _, key = name.partition(".")
        if key:
            picked.setdefault(section, {})[key] = values[section][key]
        else:
            picked[section] = values[section]
    return picked


def declared(values: dict[str, Any]) -> Params:
    """Validate the part of the parameters that a rule declares, as `pick` returned it.

    For example, `declared(pick(params, ["data.bands"])).data.bands` is the list of bands.

    Returns:
        Parameters with only the declared sections and keys. Reading any other raises `AttributeError`, so a script
        cannot depend on a value whose change would not rerun its stage.
    """
    fields: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(Params.__annotations__[name]) for name in values}
    params = Params.model_construct(**{name: field.validate_python(values[name]) for name, field in fields.items()})
    _forget(params, values)
    for name, section in params:
        if isinstance(section, Section):
            _forget(section, values[name])
    return params


def _forget(section: Section, values: Iterable[str]) -> None:
    """Delete the defaults of all keys except these."""
    for name in type(section).model_fields.keys() - set(values):
        del section.__dict__[name]
