"""Prediction: probabilities from a model or an ensemble, and masks on disk.

`cloudcover.predict` is both this package and a function of the public API, `cloudcover.predict.model.predict`.
"""

import sys
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that can be called."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function `predict.model.predict`."""
        return resolve_name("cloudcover.predict.model:predict")(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
