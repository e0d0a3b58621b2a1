"""The model included in the package."""

from __future__ import annotations

from pathlib import Path

from cloudcover.models.folder import ModelFolderError


def packaged_bundle() -> Path:
    """Return the folder of the packaged bundle, for `predict.bundle.load_bundle`; its README.md is the model card.

    Raises:
        ModelFolderError: This installation contains no model.
    """
    folder = Path(__file__).parents[1] / "assets" / "box"
    if not folder.exists():
        raise ModelFolderError(
            f"this installation contains no model ({folder} is missing): train one with `make demo`, and give its "
            "folder, models/bundle"
        )
    return folder
