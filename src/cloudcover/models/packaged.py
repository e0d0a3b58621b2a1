"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path


def packaged_bundle() -> Path:
    """Return the folder of the packaged bundle, for `predict.bundle.load_bundle`; its README.md is the model's card."""
    return Path(__file__).parents[1] / "assets" / "box"
