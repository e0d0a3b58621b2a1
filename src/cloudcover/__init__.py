"""From satellite chips with noisy masks to the best segmentation model that those labels allow.

Importing the package is cheap: it loads neither torch nor rasterio. It only prepares the import of torchvision, see
`cloudcover.runtime.torchvision_ops`.
"""

from __future__ import annotations

from cloudcover.runtime import torchvision_ops as _torchvision

_torchvision.install()


def __getattr__(name: str) -> str:
    """`__version__`, read from the installed distribution when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("cloudcover")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
