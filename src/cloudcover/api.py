"""The public API: the names that `import cloudcover` offers, and where they are defined."""

from __future__ import annotations

from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

PUBLIC = {
    "ChipStore": "cloudcover.data.store:ChipStore",
    "CloudModel": "cloudcover.predict.model:CloudModel",
    "load_model": "cloudcover.predict.model:load_model",
    "predict": "cloudcover.predict",  # the package is callable: it has the name of the function
    "score": "cloudcover.evaluate.score:compare",
}
"""Name in `cloudcover` -> module and attribute."""


def resolve(name: str) -> Any:
    """Load what a public name, or `__version__`, stands for.

    Raises:
        AttributeError: the name is not public.
    """
    if name == "__version__":
        return version("cloudcover")
    if name not in PUBLIC:
        raise AttributeError(f"module 'cloudcover' has no attribute {name!r}")
    return resolve_name(PUBLIC[name])
