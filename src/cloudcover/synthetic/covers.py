"""Land covers with their own shapes (fields, towns, water) and the mixing of covers.

Reflectances are typical values for Sentinel-2's B02, B03, B04 and B08, after atmospheric correction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.synthetic.noise import Field, Mask, fractal

FOREST = (0.018, 0.036, 0.018, 0.310)
CROP = (0.026, 0.054, 0.030, 0.380)
GRASS = (0.037, 0.066, 0.056, 0.270)
DRY_GRASS = (0.060, 0.090, 0.116, 0.245)
BROWN_SOIL = (0.050, 0.072, 0.095, 0.175)
RED_SOIL = (0.044, 0.072, 0.128, 0.225)
PALE_SOIL = (0.085, 0.110, 0.142, 0.205)
GRAVEL = (0.135, 0.155, 0.172, 0.178)
SAND = (0.165, 0.250, 0.345, 0.430)
ROCK = (0.115, 0.140, 0.165, 0.215)
CLEAR_WATER = (0.034, 0.030, 0.014, 0.009)
TURBID_WATER = (0.080, 0.105, 0.085, 0.030)
SNOW = (0.820, 0.830, 0.830, 0.760)
STREETS = (0.105, 0.120, 0.130, 0.190)
OLD_SNOW = (0.620, 0.620, 0.600, 0.470)
FRESH_SNOW = (0.950, 0.955, 0.950, 0.890)
BARE_ICE = (0.420, 0.400, 0.350, 0.230)
SALT = (0.480, 0.530, 0.560, 0.600)
METAL = (0.420, 0.440, 0.450, 0.480)
TILES = (0.110, 0.140, 0.220, 0.280)


def spectrum_of(values: tuple[float, ...]) -> Field:
    """Convert a spectrum to (4, 1, 1) float32, ready to broadcast over a chip."""
    return np.asarray(values, dtype=np.float32)[:, None, None]


def mix(ground: Field, share: Field | Mask, spectrum: tuple[float, ...] | Field) -> None:
    """Replace a share of the ground by another cover, in place.

    Args:
        ground: (4, size, size) reflectance.
        share: (size, size) [0-1].
        spectrum: The cover's reflectance, a number or an array per band.
    """
    for band, other in zip(ground, spectrum, strict=True):  # one band at a time stays in the cache
        step = np.subtract(other, band, dtype=np.float32)
        step *= share
        band += step


def ramp(field: Field, low: float, high: float) -> Field:
    """Return 0 below `low`, 1 above `high`, and a linear ramp between them."""
    out: Field = np.clip((field - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return out


def _cells(rng: np.random.Generator, coordinate: Field, width: float) -> tuple[NDArray[np.int32], Field]:
    """Divide an axis into cells of uneven width; return cell numbers and distances to the nearer edge [pixels]."""
    low = float(coordinate.min())
    length = int(float(coordinate.max()) - low) + 2
    edges = np.cumsum(width * rng.uniform(0.5, 1.8, int(length / width * 2) + 4)) - width
    ticks = np.arange(length * 2 + 2) / 2
    number = np.searchsorted(edges, ticks).astype(np.int32)
    distance = np.minimum(np.abs(ticks - edges[number - 1]), np.abs(edges[np.minimum(number, len(edges) - 1)] - ticks))
    index = ((coordinate - np.float32(low)) * 2).astype(np.int32)
    return number[index], distance.astype(np.float32)[index]


def parcels(rng: np.random.Generator, size: int, width: float, aspect: float) -> tuple[NDArray[np.int32], Field]:
    """Generate a mosaic of fields along a common direction, as in a land register.

    Args:
        rng: Random number generator.
        size: Height and width [pixels].
        width: Typical width of a field [pixels].
        aspect: Length of a field over its width.

    Returns:
        Field numbers in 0..1023, and distances to the field's edge [pixels], both (size, size).
    """
    angle = rng.uniform(0, np.pi / 2)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    u = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    v = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    block, block_edge = _cells(rng, u, width * aspect * 2)
    strip, strip_edge = _cells(rng, v, width)
    # The strips of a block are cut at different places, so that field corners do not form a lattice.
    shift = rng.uniform(0, width * aspect, 4096).astype(np.float32)
    part, part_edge = _cells(rng, u + shift[(block * 61 + strip) & 4095], width * aspect)
    number = (block * 7919 + strip * 104729 + part * 1299721) & 1023
    return number, np.minimum(np.minimum(block_edge, strip_edge), part_edge)


def farm(rng: np.random.Generator, ground: Field, share: Field, season: float, size: int) -> None:
    """Add fields of crop, stubble and bare soil, with paths between them."""
    number, edge = parcels(rng, size, float(rng.uniform(7, 26)), float(rng.uniform(1.2, 4)))
    green = np.clip(rng.beta(0.9, 0.9, 1024) * (0.35 + 0.9 * season), 0, 1).astype(np.float32)
    soil = spectrum_of(BROWN_SOIL if rng.random() < 0.5 else RED_SOIL)[:, 0]
    bright = np.exp(rng.normal(0, 0.3, 1024)).astype(np.float32)
    dry = rng.random(1024) < 0.35
    bare = np.where(dry, spectrum_of(DRY_GRASS)[:, 0], soil)
    table = bright * (bare + green * (spectrum_of(CROP)[:, 0] - bare))
    fields: Field = table[:, number]
    mix(fields, (edge < 0.7) * np.float32(0.6), DRY_GRASS)
    if rng.random() < 0.25:  # irrigation circles
        radius = float(rng.uniform(12, 30))
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        pitch = np.float32(radius * 2.1)
        disc = (rows % pitch - pitch / 2) ** 2 + (columns % pitch - pitch / 2) ** 2 < radius**2
        disc &= (((rows // pitch) * 7 + (columns // pitch) * 13) % 5) > 1
        mix(fields, disc * np.float32(0.8), CROP)
    mix(ground, share, fields)


def town(rng: np.random.Generator, ground: Field, share: Field, size: int) -> None:
    """Add streets, trees and roofs, some of them bright metal."""
    block, edge = parcels(rng, size, float(rng.uniform(2.5, 5)), float(rng.uniform(1, 2)))
    kind = rng.random(1024)
    table = np.empty((4, 1024), np.float32)
    table[:] = spectrum_of(STREETS)[:, 0] * np.exp(rng.normal(0, 0.25, 1024)).astype(np.float32)
    table[:, kind < 0.30] = spectrum_of(GRASS)[:, 0]
    table[:, kind > 0.55] = spectrum_of(TILES)[:, 0] * rng.uniform(0.7, 1.3)
    metal = kind > 0.93
    table[:, metal] = spectrum_of(METAL)[:, 0] * rng.uniform(0.6, 2.0, int(metal.sum())).astype(np.float32)
    houses: Field = table[:, block]
    mix(houses, edge < 0.6, STREETS)
    mix(ground, share, houses)


def barren(rng: np.random.Generator, ground: Field, share: Field, size: int) -> None:
    """Add pale bare ground, from dusty soil to gravel: pans and clearings by share, yards, pits and tracks by lines."""
    plot, edge = parcels(rng, size, float(rng.uniform(8, 40)), float(rng.uniform(1, 3)))
    gravel = rng.beta(0.7, 1.2, 1024).astype(np.float32)
    bright = np.exp(rng.normal(0, 0.3, 1024)).astype(np.float32)
    soil, stones = spectrum_of(PALE_SOIL)[:, 0], spectrum_of(GRAVEL)[:, 0]
    table = bright * (soil + gravel * (stones - soil))
    worn = np.where((rng.random(1024) < rng.uniform(0, 0.15))[plot], np.float32(0.9), share)
    mix(ground, np.maximum(worn, (edge < 0.7) * np.float32(0.5)), table[:, plot])


def water(rng: np.random.Generator, ground: Field, share: Field, glint: float, size: int) -> None:
    """Add clear to turbid water with sun glint, deeper inside."""
    turbid = ramp(fractal(rng, size, 0.8, 120.0), -2.5, 2.5) * np.float32(rng.choice([0.15, 0.5, 1.0]))
    surface = spectrum_of(CLEAR_WATER) + (spectrum_of(TURBID_WATER) - spectrum_of(CLEAR_WATER)) * turbid
    if glint:
        waves = fractal(rng, size, 0.1, 6.0, 3.0, float(rng.uniform(0, np.pi)))
        surface += np.maximum(np.float32(glint) * (1 + np.float32(0.12) * waves), 0)
    mix(ground, share, surface)


def winter(rng: np.random.Generator, ground: Field, relief: Field, cover: Field, slope: Field) -> None:
    """Add snow, from patches to a closed smooth field, fresh to old, with bare ice, and dark woods above the snow."""
    size = len(relief)
    age = float(rng.beta(0.8, 0.8))
    spectrum = spectrum_of(FRESH_SNOW) + (spectrum_of(OLD_SNOW) - spectrum_of(FRESH_SNOW)) * np.float32(age)
    rough, width, wind = float(rng.uniform(0.1, 0.9)), float(rng.uniform(10, 200)), float(rng.uniform(0, np.pi))
    drifts = fractal(rng, size, rough, width, 2.0, wind)
    steep = np.float32(rng.choice([0.0, 0.1, 1.6]))
    snow = spectrum * (1 + np.float32(rng.uniform(0.003, 0.05)) * drifts)
    snow = snow * np.clip(1 + steep * slope, 0.2, 1.15) * np.float32(rng.uniform(0.75, 1.05))
    if rng.random() < 0.4:  # a lake or glacier, from bare blue ice to snow-covered
        level = float(rng.normal(0, 1.0))
        bare = ramp(cover + np.float32(0.4) * drifts, level, level + 1.0) * np.float32(rng.uniform(0.3, 1.0))
        mix(snow, bare, spectrum_of(BARE_ICE) * (1 + np.float32(0.08) * drifts))
    everywhere = rng.random() < 0.5
    level = float(rng.normal(-1.0, 1.2))
    share = np.ones_like(relief) if everywhere else ramp(cover + relief * np.float32(0.5), level, level + 0.3)
    if rng.random() < 0.4:
        woods = float(rng.normal(0.8, 0.8))
        share = share * (1 - ramp(relief - cover, woods, woods + 0.5) * np.float32(rng.uniform(0.4, 0.95)))
    mix(ground, share, snow)


def pan(rng: np.random.Generator, ground: Field, share: Field) -> None:
    """Add a salt pan or white beach, bright in all bands."""
    crust = fractal(rng, len(share), 0.4, 60.0)
    bright = np.float32(rng.uniform(0.5, 1.25)) * (1 + np.float32(0.06) * crust)
    mix(ground, share, spectrum_of(SALT) * bright)
