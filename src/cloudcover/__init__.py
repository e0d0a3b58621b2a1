"""Cloud masks for satellite images, and the workflow that trains their models from noisy labels.

Importing the package is cheap: the names of the public API (`cloudcover.api`) load their modules on first use. It only
prepares the import of torchvision, see `cloudcover.runtime.torchvision_ops`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloudcover.runtime import torchvision_ops as _torchvision

if TYPE_CHECKING:
    from cloudcover.data.store import ChipStore as ChipStore
    from cloudcover.evaluate.score import compare as score
    from cloudcover.predict.model import CloudModel as CloudModel
    from cloudcover.predict.model import load_model as load_model
    from cloudcover.predict.model import predict as predict

    __version__: str
    __all__ = ["ChipStore", "CloudModel", "__version__", "load_model", "predict", "score"]

_torchvision.install()


# The table of names is not in this file, and its module is not imported by a statement: every stage of the workflow
# depends on this file, and a new name of the API must not make them stale.
def __getattr__(name: str) -> Any:
    """Load a name of the public API."""
    from importlib import import_module

    return import_module("cloudcover.api").resolve(name)


def __dir__() -> list[str]:
    """List the names of the public API as well."""
    from importlib import import_module

    return sorted({*globals(), *import_module("cloudcover.api").PUBLIC})
