"""Clouds as multifractal fields: optical thickness is the exponential of a Gaussian field with a power-law spectrum.

Opacity follows the two-stream approximation R = x / (1 + x), x = (1 - g) tau / 2 (Bohren 1987, doi 10.1119/1.15109):
thin edges are grey, thick bodies approach white. The true mask is opacity above `THRESHOLD`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudcover.synthetic.noise import Field, Mask, fractal
from cloudcover.synthetic.sites import KINDS, CloudKind, Scene

# Annotators include cloud that hardly veils the ground: just inside the edges of real labels, opacity is about 0.01.
THRESHOLD = 0.02
_EDGE = THRESHOLD / (1 - THRESHOLD)  # scaled optical thickness at the edge of the mask
MARGIN = 64  # pixels simulated around a chip, so that clouds outside it cast shadows into it


@dataclass(frozen=True)
class Clouds:
    """The sky above a chip and its margin.

    Attributes:
        opacity: Reflectance of the cloud layer and also the share of light it withholds from the ground, (size + 2
            MARGIN) squared [0-1].
        light: Brightness of the cloud tops relative to the scene's tint, same shape.
    """

    opacity: Field
    light: Field

    @property
    def mask(self) -> Mask:
        """True cloud mask of the chip, without the margin."""
        return self.opacity[MARGIN:-MARGIN, MARGIN:-MARGIN] > THRESHOLD


@dataclass(frozen=True)
class Profile:
    """The parameters that distinguish kinds of clouds.

    Attributes:
        hurst: Smoothness of the outline (Hurst exponent).
        rise: Steepness of the logarithm of the thickness inside the edge, per standard deviation of the shape.
        depth: Total rise of that logarithm.
        uneven: Relative unevenness inside a cloud, such as heads of cumulus and cells of a deck.
        stretch: Minimum and maximum ratio of length to width, along the wind.
        relief: Strength of light and shade on the slopes of the tops.
    """

    hurst: float
    rise: float
    depth: float
    uneven: float
    stretch: tuple[float, float]
    relief: float


PROFILES: dict[CloudKind, Profile] = {
    "cumulus": Profile(0.85, 5.4, 4.2, 0.40, (1.0, 1.0), 0.22),
    "deck": Profile(0.65, 3.8, 3.6, 0.34, (1.0, 1.8), 0.13),
    "cirrus": Profile(0.55, 2.3, 3.0, 0.25, (3.0, 8.0), 0.0),
    "haze": Profile(0.90, 1.8, 2.7, 0.17, (1.0, 1.0), 0.0),
}
STRAY_SHARE = 0.25  # share of chips with their own kind of cloud instead of the scene's


def sky(rng: np.random.Generator, of: Scene, cover: float, size: int) -> Clouds:
    """Generate the clouds of a chip.

    Args:
        rng: Random number generator of the chip's sky.
        of: The scene, which determines kind, scale, thickness and light.
        cover: Share of the chip to cover with mask [0-1], met to within a pixel.
        size: Height and width of the chip [pixels].
    """
    kind = of.kind if rng.random() > STRAY_SHARE else list(KINDS)[int(rng.choice(len(KINDS), p=list(KINDS.values())))]
    profile = PROFILES[kind]
    full = size + 2 * MARGIN
    stretch, angle = float(rng.uniform(*profile.stretch)), of.wind + float(rng.normal(0, 0.1))
    shape = fractal(rng, full, profile.hurst, of.outer, stretch, angle)
    bumps = fractal(rng, full, 0.55, 100.0, stretch, angle)
    thick = 0.55 * of.thickness + 0.65 * float(rng.normal())
    if cover >= 1:  # from a thin veil to the top of a storm, but uniform within the chip
        limit, uneven, shadow = max(profile.depth + 0.2 + 1.75 * thick, of.least_depth), 0.5 * profile.uneven, 0.5
    else:
        limit = max(profile.depth + 0.05 + 1.0 * thick - 0.4 * cover, of.least_depth)
        uneven, shadow = profile.uneven, 0.15

    uneven *= of.uneven
    above = shape - np.float32(_edge(rng, shape[MARGIN:-MARGIN, MARGIN:-MARGIN], cover))
    above *= np.float32(profile.rise * min(limit / profile.depth, 1.3))
    # The logarithm of the thickness rises from a thin fringe to the body and levels off; outside it keeps falling.
    body = np.maximum(above, 0) * np.float32(1 / limit)
    inside = np.float32(-limit) * np.expm1(-body * np.sqrt(body))
    growth = np.where(above > 0, inside, np.float32(1.5) * above)
    growth *= np.exp(bumps * np.float32(uneven))
    thickness = np.float32(_EDGE) * np.exp(growth)

    # Clouds in the shadow of higher clouds are grey, but still hide the ground.
    light = np.full_like(shape, max(float(np.exp(-abs(rng.normal(0, shadow + of.gloom)))), 0.3))
    if profile.relief:
        light += np.float32(profile.relief * of.uneven) * _lit(np.log1p(thickness), of)
        np.clip(light, 0.25, 1.25, out=light)
    return Clouds(thickness / (1 + thickness), light)


def _edge(rng: np.random.Generator, shape: Field, cover: float) -> float:
    """Return the level of the shape above which there is cloud."""
    if cover >= 1:
        return float(shape.min()) - float(rng.exponential(0.5))
    if cover <= 0:
        return float(shape.max()) + float(rng.exponential(0.6))
    place = min(int((1 - cover) * shape.size), shape.size - 1)
    return float(np.partition(shape, place, axis=None)[place])


def _lit(relief: Field, of: Scene) -> Field:
    """Return the slope of the cloud tops towards the sun, which gives cumulus its lit and shaded sides."""
    step = 3
    out = np.zeros_like(relief)
    out[:, step:-step] = np.float32(np.sin(of.sun_azimuth)) * (relief[:, : -2 * step] - relief[:, 2 * step :])
    out[step:-step, :] += np.float32(np.cos(of.sun_azimuth)) * (relief[2 * step :, :] - relief[: -2 * step, :])
    return np.clip(out, -1.5, 1.5, out=out)


def shadow_offset(of: Scene) -> tuple[int, int]:
    """Return the offset in rows and columns from a cloud to its shadow [pixels], at most the margin."""
    length = of.height / np.tan(of.sun_elevation) / 10
    length = min(length, MARGIN - 2)
    return round(length * np.cos(of.sun_azimuth)), round(-length * np.sin(of.sun_azimuth))
