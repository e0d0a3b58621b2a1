"""Submissions to the challenge's code runtime: a model, the modules that run it, and a `main.py`, in one archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from cloudcover.models.folder import CARD, WEIGHTS, ModelFolderError, load_card
from cloudcover.predict import submission_main
from cloudcover.predict.bundle import BUNDLE, read_bundle
from cloudcover.predict.openvino.card import CARD as EXPORT_CARD
from cloudcover.runtime.files import atomic

PACKAGE = Path(__file__).parents[1]
BANDS = {"B02", "B03", "B04", "B08"}
"""Bands available in the runtime."""


def write_submission(model: Path, out: Path) -> None:
    """Write `submission.zip`; the same model gives the same bytes.

    Args:
        model: Bundle or model folder; its post-processing, views and temperature are preserved.
        out: Archive to write.

    Raises:
        FileExistsError: The archive already exists.
        ModelFolderError: It is not a model, it is an OpenVINO export, or it needs bands that the runtime lacks.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists: remove it, or choose another --out")
    contents = {"main.py": Path(submission_main.__file__)}
    contents |= {f"cloudcover/{path.relative_to(PACKAGE).as_posix()}": path for path in PACKAGE.rglob("*.py")}
    contents |= {f"model/{path.relative_to(model).as_posix()}": path for path in _model_files(model)}
    with atomic(out) as part, ZipFile(part, "w", ZIP_DEFLATED) as archive:
        for name, path in sorted(contents.items()):
            archive.writestr(ZipInfo(name), path.read_bytes(), ZIP_DEFLATED)


def _model_files(model: Path) -> Iterator[Path]:
    """List the files of a bundle or model folder; raises as `write_submission`."""
    folders = [model]
    if (model / BUNDLE).exists():
        yield model / BUNDLE
        folders = [model / name for name in read_bundle(model).models]
    for folder in folders:
        if (folder / EXPORT_CARD).exists():
            raise ModelFolderError(
                f"{folder} is an export, but the runtime has no OpenVINO: submit the model that it was made from"
            )
        if lacking := set(load_card(folder).bands) - BANDS:
            raise ModelFolderError(f"{folder} needs the bands {sorted(lacking)}, but the runtime has {sorted(BANDS)}")
        yield folder / CARD
        yield folder / WEIGHTS
