"""Rendering of one chip: ground, shadows, clouds, haze and the sensor, as digital numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.runtime.files import derive_seed
from cloudcover.synthetic import clouds, land, sites
from cloudcover.synthetic.clouds import MARGIN
from cloudcover.synthetic.noise import Field, Mask

SATURATION_DN = 16_000
_SKYLIGHT = (0.46, 0.42, 0.38, 0.34)  # light that reaches a deep shadow, mostly blue
_HAZE = (0.55, 0.42, 0.34, 0.22)  # colour of haze [reflectance]

_LOSS = 1.5  # light crosses the cloud twice, but much of it is scattered forwards and still reaches the ground


@dataclass(frozen=True)
class Chip:
    """A chip as the sensor sees it.

    Attributes:
        bands: (4, size, size) uint16, DN = reflectance x 10,000, never 0; order as `land.BANDS`.
        opacity: Opacity of the clouds (size, size) [0-1].
    """

    bands: NDArray[np.uint16]
    opacity: Field

    @property
    def mask(self) -> Mask:
        """True cloud mask (size, size)."""
        return self.opacity > clouds.THRESHOLD


def _sky(seed: int, of: sites.Scene, position: int, size: int) -> clouds.Clouds:
    rng = np.random.default_rng(derive_seed(seed, "scene", of.index, "sky", position))
    return clouds.sky(rng, of, sites.coverage(seed, of, position), size)


def true_mask(seed: int, of: sites.Scene, position: int, size: int) -> Mask:
    """Generate only the mask of a chip, without its picture."""
    return veil(seed, of, position, size) > clouds.THRESHOLD


def veil(seed: int, of: sites.Scene, position: int, size: int) -> Field:
    """Generate only the opacity of a chip's clouds, (size, size) [0-1]."""
    fold = _fold(of)
    inside = slice(MARGIN, MARGIN + fold * size)
    return _averaged(_sky(seed, of, position, fold * size).opacity[inside, inside], fold)


def _fold(of: sites.Scene) -> int:
    """Return how many fine pixels are as wide as one pixel of the scene."""
    return round(of.pixel_m / sites.FINE_M)


def _averaged(field: Field, fold: int) -> Field:
    """Average blocks of fold x fold pixels along the last two axes."""
    if fold == 1:
        return field
    rows, columns = field.shape[-2] // fold, field.shape[-1] // fold
    means: Field = field.reshape(*field.shape[:-2], rows, fold, columns, fold).mean(axis=(-3, -1))
    return means


def render(seed: int, of: sites.Scene, position: int, size: int) -> Chip:
    """Render the chip at a position of a scene.

    Args:
        seed: Random seed of the set.
        of: The scene.
        position: Number of the chip in the scene's grid.
        size: Height and width [pixels].
    """
    fold = _fold(of)
    reflectance, opacity = _reflectance(seed, of, position, fold * size)
    noise = np.random.default_rng(derive_seed(seed, "scene", of.index, "noise", position))
    bands = np.empty((len(reflectance), size, size), np.uint16)
    for index, fine in enumerate(reflectance):
        band = _averaged(fine, fold)
        grain = noise.standard_normal(band.shape, dtype=np.float32)
        grain *= np.float32(8) + np.float32(60) * band
        band *= DN_PER_REFLECTANCE
        band += grain
        bands[index] = np.clip(np.rint(band, out=band), 1, SATURATION_DN)
    return Chip(bands, _averaged(opacity, fold))


def _reflectance(seed: int, of: sites.Scene, position: int, size: int) -> tuple[Field, Field]:
    """Simulate sensor reflectance (4, size, size) and cloud opacity (size, size), in fine pixels."""
    ground_of = ("land", of.site.index, position, *(["ground", of.ground] if of.ground else []))
    place = np.random.default_rng(derive_seed(seed, *ground_of))
    ground = land.reflectance(place, of, size)
    above = _sky(seed, of, position, size)
    inside = slice(MARGIN, MARGIN + size)

    rows, columns = clouds.shadow_offset(of)
    cast = above.opacity[MARGIN - rows : MARGIN - rows + size, MARGIN - columns : MARGIN - columns + size]
    shade = np.minimum(cast * np.float32(1.15), 1)
    opacity = above.opacity[inside, inside]
    through = (1 - opacity) ** _LOSS * np.float32(1 - of.haze)
    glow = opacity * above.light[inside, inside]
    for index, band in enumerate(ground):
        band *= 1 - np.float32(1 - _SKYLIGHT[index]) * shade
        band *= through
        band += np.float32(_HAZE[index] * of.haze)
        band += np.float32(of.tint[index]) * glow
        if of.air is not None:
            of.air.put_before(band, index, opacity)
    return ground, opacity
