"""The folder of an exported network: its card, its origin, and the hashes of its parts."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cloudcover.models.folder import ModelFolderError
from cloudcover.runtime.files import read_json, sha256

CARD = "export.json"
GRAPH, WEIGHTS = "model.xml", "model.bin"

Precision = Literal["fp32", "bf16", "int8"]


class ExportError(ValueError):
    """A network that cannot be exported, or an export that cannot be run as requested; the message gives the remedy."""


class Export(BaseModel):
    """The description of an export.

    Attributes:
        precision: Precision of the computation; int8 keeps layers that cannot be quantised in bf16.
        source_sha256: SHA-256 of the original weights, as in `model.json`.
        files_sha256: SHA-256 of `model.xml` and `model.bin`.
        calibration_chips: Ids of the chips that the int8 ranges were measured on.
        checked_chips: Ids of the other chips that the export was compared with torch in fp32 on.
        disagreement_share: Share of the pixels of `checked_chips` whose mask differs [0-1]; None without chips.
        versions: Versions of the libraries that made the export.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Precision
    source_sha256: str
    files_sha256: dict[str, str]
    calibration_chips: list[str] = []
    checked_chips: list[str] = []
    disagreement_share: float | None = None
    versions: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> Export:
        if sorted(self.files_sha256) != sorted((GRAPH, WEIGHTS)):
            raise ValueError(
                f"files_sha256 must hold the hashes of {GRAPH} and {WEIGHTS}, not {list(self.files_sha256)}"
            )
        return self


def load_export(folder: Path) -> Export:
    """Read `export.json` and check the files that it lists.

    Raises:
        ModelFolderError: It is not the card of an export, or a file is missing or altered.
    """
    try:
        export = Export.model_validate(read_json(folder / CARD))
    except (ValidationError, ValueError) as error:
        raise ModelFolderError(f"{folder / CARD} is not an export's card: {error}") from None
    for name, expected in export.files_sha256.items():
        path = folder / name
        if not path.exists():
            raise ModelFolderError(f"{folder} is not a complete export: {name} is missing")
        if (found := sha256(path)) != expected:
            raise ModelFolderError(f"{path} has SHA-256 {found}, but {CARD} was written for {expected}")
    return export


def load_library(name: Literal["openvino", "nncf"]) -> ModuleType:
    """Import a library of the extra `openvino`, without the telemetry that both would send.

    Raises:
        ExportError: It is not installed.
    """
    # Both report their use to the vendor, unless this package cannot be imported, which they tolerate.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(f'{name} cannot be imported ({error}): pip install "cloudcover[openvino]"') from None
