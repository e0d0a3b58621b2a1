"""Random views of a few real chips: window, scale, light and atmosphere are drawn again for each.

A network soon memorises twenty-five chips. A view is a square window of random side, resampled to the training size, so
that a chip of 10 m also shows what 30 m pixels look like. Half of the views change their product: Level-2A gets an
atmosphere, top-of-atmosphere reflectance loses one. All bands are brightened alike, because the differences between
bands distinguish snow from cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.synthetic.atmosphere import Air, air

SIDES = (0.6, 3.5)  # least and greatest side of a window, relative to the view; the chip is the limit
PRODUCT_CHANGES = 0.5  # share of the views
LIGHT, BAND = 0.10, 0.01  # spread of the logarithm of the gain that all bands share, and of each band's own
LOWEST_SUN = 0.35  # sine of its elevation
FLOOR = 0.002  # the darkest reflectance that a taken-away atmosphere may leave


@dataclass(frozen=True)
class RealChip:
    """A labelled real chip.

    Attributes:
        name: Its id.
        place: What it has in common with chips of the same place.
        level: `l2a` for surface reflectance, `l1c` for top-of-atmosphere reflectance.
        bands: (4, H, W) uint16 [DN]; 0 where there is no data.
        label: (H, W) uint8 of {0, 1, 255}.
    """

    name: str
    place: str
    level: str
    bands: NDArray[np.uint16]
    label: NDArray[np.uint8]


class RealViews:
    """Draws views of chips. Both levels count the same, and within a level every chip.

    Args:
        chips: The chips.
        size: Height and width of a view [pixels].
    """

    def __init__(self, chips: Sequence[RealChip], size: int) -> None:
        self.chips, self.size = chips, size
        levels = [chip.level for chip in chips]
        chance = np.array([1 / levels.count(level) for level in levels])
        self.chance = chance / chance.sum()

    def draw(self, count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        """Draw views: images (count, 4, size, size) [DN] and labels (count, size, size) of {0, 1, 255}."""
        views = [self._view(self.chips[k], rng) for k in rng.choice(len(self.chips), count, p=self.chance)]
        return np.stack([image for image, _ in views]), np.stack([label for _, label in views])

    def _view(self, chip: RealChip, rng: np.random.Generator) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        height, width = chip.label.shape
        low, high = np.log(self.size * SIDES[0]), np.log(min(height, width, self.size * SIDES[1]))
        side = int(np.exp(rng.uniform(low, high)))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        window = (..., slice(top, top + side), slice(left, left + side))
        known = (chip.bands[window] > 0).all(axis=0)
        label = np.where(known, chip.label[window], IGNORE_INDEX).astype(np.float32)
        mode = {"mode": "area"} if side > self.size else {"mode": "bilinear", "align_corners": False}
        image = self._resized(chip.bands[window].astype(np.float32) / DN_PER_REFLECTANCE, **mode)
        image = light(image, chip.level, rng) * DN_PER_REFLECTANCE
        label = self._resized(label[None], mode="nearest")[0].astype(np.uint8)
        return np.clip(np.rint(image), 1, 65_535).astype(np.uint16), label

    def _resized(self, planes: NDArray[np.float32], **how: object) -> NDArray[np.float32]:
        """Resample (planes, side, side) to the size of a view."""
        resized: NDArray[np.float32] = F.interpolate(torch.from_numpy(planes)[None], self.size, **how)[0].numpy()  # type: ignore[arg-type]
        return resized


def light(image: NDArray[np.float32], level: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Change product and brightness at random.

    Args:
        image: (4, size, size) [reflectance].
        level: `l2a` or `l1c`.
        rng: Source of randomness.
    """
    if rng.random() < PRODUCT_CHANGES:
        between = air(rng, float(np.arcsin(rng.uniform(LOWEST_SUN, 1))))
        image = above(image, between) if level == "l2a" else below(image, between)
    gain = np.exp(rng.normal(0, LIGHT) + rng.normal(0, BAND, (len(image), 1, 1)))
    return (image * gain).astype(np.float32)


def above(image: NDArray[np.float32], between: Air) -> NDArray[np.float32]:
    """Add an atmosphere to a surface: the inverse of the Level-2A correction, for clouds as for ground."""
    path, through, gas = _columns(between)
    changed: NDArray[np.float32] = (image * through + path) * gas
    return changed


def below(image: NDArray[np.float32], between: Air) -> NDArray[np.float32]:
    """Remove an atmosphere, or as much of it as leaves nothing darker than `FLOOR`."""
    path, through, gas = _columns(between)
    clear = image / gas
    darkest = np.quantile(clear, 0.01, axis=(1, 2), keepdims=True)
    share = np.clip((darkest - FLOOR) / path, 0, 1).min()
    changed: NDArray[np.float32] = (clear - share * path) / through
    return changed


def _columns(between: Air) -> list[NDArray[np.float32]]:
    """Return path reflectance, transmission and gas absorption as (4, 1, 1)."""
    return [np.array(part, np.float32)[:, None, None] for part in (between.path, between.through, between.gas)]
