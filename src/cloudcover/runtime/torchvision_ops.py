"""Support for importing torchvision with a torch without CUDA.

The torchvision wheel on PyPI is built for CUDA. With a CPU build of torch, its library `_C` does not load. The import
then fails with "operator torchvision::nms does not exist", because it refers to operators that `_C` would define, and
segmentation-models-pytorch and timm cannot be imported either. Models and transforms use none of these operators, so it
is enough that their schemas exist.

`install` hooks into the import system, so that torch is loaded only together with torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[object] = []  # a schema exists only as long as its torch.library.Library


class _Loader(SourceFileLoader):
    """A loader that defines the missing operators before it runs torchvision's `__init__`."""

    def exec_module(self, module: ModuleType) -> None:
        _register_missing_operators(Path(self.path).parent)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """A finder that locates torchvision as Python does, and assigns `_Loader` to it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Prepare the import of torchvision; a second call has no effect."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register_missing_operators(folder: Path) -> None:
    """Define the schemas of torchvision's operators if torch has no CUDA and `_C` in `folder` does not load."""
    import torch

    if torch.version.cuda is not None or _loads(folder):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
    _libraries.append(library)


def _loads(folder: Path) -> bool:
    """Return whether torchvision's compiled operators can be loaded into this torch."""
    import torch

    library = PathFinder.find_spec("_C", [str(folder)])
    if library is None or library.origin is None:
        return False
    try:
        torch.ops.load_library(library.origin)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return True
