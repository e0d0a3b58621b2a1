"""The public API: the names offered by `import cloudcover`, and the modules that define them."""

from __future__ import annotations

from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

PUBLIC = {
    "ChipStore": "cloudcover.data.store:ChipStore",
    "CloudModel": "cloudcover.predict.model:CloudModel",
    "load_model": "cloudcover.predict.model:load_model",
    "predict": "cloudcover.predict",  # the package has the same name as the function, so it is callable
    "score": "cloudcover.evaluate.score:compare",
}
"""Name in `cloudcover` -> module and attribute."""


def resolve(name: str) -> Any:
    """Load the object behind a public name or `__version__`.

    Raises:
        AttributeError: The name is not public.
    """
    if name == "__version__":
        return version("cloudcover")
    if name not in PUBLIC:
        raise AttributeError(f"module 'cloudcover' has no attribute {name!r}")
    return resolve_name(PUBLIC[name])
