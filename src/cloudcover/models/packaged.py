"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

from cloudcover.models.folder import ModelFolderError


def packaged_bundle() -> Path:
    """Return the folder of the packaged bundle, for `predict.bundle.load_bundle`; its README.md is the model's card.

    Raises:
        ModelFolderError: this installation has none.
    """
    folder = Path(__file__).parents[1] / "assets" / "box"
    if not folder.exists():
        raise ModelFolderError(
            f"this installation has no model of its own ({folder} is missing): train one by `make demo`, "
            "and name its folder, models/bundle"
        )
    return folder
