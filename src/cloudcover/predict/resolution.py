"""Pixel sizes other than the model's: images are resampled for the network, and probabilities are resampled back."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from cloudcover.data.grid import Grid
from cloudcover.data.values import LARGEST
from cloudcover.models.folder import RESOLUTION_M
from cloudcover.predict.metres import GridError, pixel_metres

Resolution = float | Literal["auto"] | None
"""Pixel size that the network sees: metres, `auto` for that of its training, or None for that of the image."""

FINEST = 32
"""Largest number of the network's pixels per pixel of the image along a side; a window still holds 32 of these."""
SAME_SHARE = 0.01
"""Pixel sizes that differ by less are treated as equal."""


def scale_of(grid: Grid, resolution: Resolution) -> float:
    """Return the pixels of the network per pixel of the image along a side; 1 if there is no resampling.

    Raises:
        GridError: See `pixel_metres`; or the pixels are too large to be divided so finely.
    """
    if resolution is None:
        return 1.0
    pixel = math.sqrt(math.prod(pixel_metres(grid)))
    wanted = RESOLUTION_M if resolution == "auto" else resolution
    scale = pixel / wanted
    if scale > FINEST:
        raise GridError(
            f"has pixels of {pixel:g} m, which cannot be resampled to {wanted:g} m: --resolution must be at least "
            f"{pixel / FINEST:g}"
        )
    return 1.0 if abs(scale - 1) < SAME_SHARE else scale


def seen_metres(grid: Grid, scale: float) -> float | None:
    """Return the pixel size that the network sees, by `scale_of`; None if it is that of the image [m]."""
    return max(pixel_metres(grid)) / scale if scale != 1 else None


def resample(dn: NDArray[np.uint16], size: tuple[int, int], nodata: int) -> NDArray[np.uint16]:
    """Resample images linearly, by area averaging on reduction; pixels without data have no weight.

    Args:
        dn: N x B x H x W uint16 [DN].
        size: New height and width [pixels].
        nodata: Value of pixels without data [DN].

    Returns:
        N x B x height x width uint16 [DN]; no data where less than half of a pixel has data.
    """
    result = np.empty((*dn.shape[:2], *size), np.uint16)
    for plane, out in zip(dn.reshape(-1, *dn.shape[2:]), result.reshape(-1, *size), strict=True):
        values = torch.from_numpy(plane.astype(np.float32))[None, None]
        valid = (values != nodata).float()
        weight = _fit(valid, size)
        mean = _fit(values * valid, size) / weight.clamp(min=1e-6)
        out[:] = mean.round().clamp(1, LARGEST)[0, 0].numpy()
        out[weight[0, 0].numpy() < 0.5] = nodata
    return result


def resample_back(probabilities: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resample probabilities N x h x w to N x height x width, as in `resample`."""
    fitted: NDArray[np.float32] = _fit(torch.from_numpy(probabilities)[None], size)[0].numpy()
    return fitted


def _fit(images: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
