"""Ground reflectance of a chip, composed linearly of the covers that a kind of land has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from cloudcover.synthetic import covers
from cloudcover.synthetic.covers import mix, ramp, spectrum_of
from cloudcover.synthetic.noise import Field, fractal
from cloudcover.synthetic.sites import Biome, Scene

BANDS = ("B02", "B03", "B04", "B08")
SOILS = (covers.BROWN_SOIL, covers.RED_SOIL, covers.PALE_SOIL)
SOIL_SHARES = (0.4, 0.3, 0.3)
_FLOOR = np.float32(0.003)  # minimum reflectance: nothing is completely black


@dataclass(frozen=True)
class Character:
    """The composition of a kind of land.

    Attributes:
        green: Share of plants [0-1]; follows the season except in evergreen land.
        plant: Reflectance of the plants.
        soil: Reflectance of bare ground; None: brown, red or pale at random.
        rough: Strength of light and shade on slopes.
        farms: Probability that a chip has fields.
        farm_level: Relief above which fields are placed: mean and standard deviation of a roughly normal level.
        towns: Probability that a chip has a town.
        town_level: The same for towns.
        water: Probability that a chip has a lake or the sea.
        water_level: Relief below which water is placed, given in the same way.
        barren: Probability that a chip has pale bare ground.
        evergreen: Whether the land is green in all seasons, without dry grass.
    """

    green: float
    plant: tuple[float, ...]
    soil: tuple[float, ...] | None = None
    rough: float = 0.35
    farms: float = 0.15
    farm_level: tuple[float, float] = (0.5, 0.6)
    towns: float = 0.05
    town_level: tuple[float, float] = (1.7, 0.3)
    water: float = 0.05
    water_level: tuple[float, float] = (-0.9, 0.7)
    barren: float = 0.2
    evergreen: bool = False


CHARACTERS: dict[Biome, Character] = {
    "savanna": Character(0.45, covers.GRASS, farms=0.35, towns=0.15, barren=0.5),
    "farmland": Character(0.5, covers.CROP, farms=0.95, farm_level=(-1.2, 0.8), towns=0.3, barren=0.4),
    "forest": Character(0.92, covers.FOREST, rough=0.8, farms=0.4, farm_level=(1.2, 0.4), evergreen=True),
    "desert": Character(0.0, covers.GRASS, covers.SAND, rough=0.5, barren=0.5, evergreen=True),
    "coast": Character(0.6, covers.FOREST, farms=0.4, towns=0.3, water=0.85, water_level=(1.3, 2.5)),
    "lakes": Character(0.65, covers.FOREST, farms=0.5, water=0.6),
    "mountains": Character(0.45, covers.FOREST, covers.ROCK, rough=2.2, farms=0.2),
    "town": Character(0.45, covers.FOREST, farms=0.6, towns=0.95, town_level=(-0.6, 0.5), barren=0.5),
    "ice": Character(0.5, covers.FOREST, rough=1.0, farms=0.5, towns=0.1, water=0.5),
    "sea": Character(0.5, covers.FOREST, water=1.0, water_level=(4.0, 2.0)),
    "salt": Character(0.1, covers.GRASS, covers.PALE_SOIL, water=0.2, barren=0.9),
}


def reflectance(place: np.random.Generator, of: Scene, size: int) -> Field:
    """Compose the ground reflectance under a clear sky.

    Args:
        place: Random number generator of the place, the same for all scenes of a site, so that fields and shores stay
            where they are.
        of: The scene, which determines kind of land, season and sun.
        size: Height and width of the chip [pixels].

    Returns:
        (4, size, size) float32, bands as in `BANDS`.
    """
    kind = CHARACTERS[of.site.biome]
    relief = fractal(place, size, 1.0, 300.0)
    cover = fractal(place, size, 0.45, 160.0)
    fine = fractal(place, size, 0.0, 5.0)
    slope = _slope(relief, of)

    ground = _vegetation(place, kind, of.season, relief, cover, fine)
    shade = 1 + np.float32(kind.rough) * slope + np.float32(0.08) * fine + np.float32(0.12) * cover
    if of.site.biome == "desert":
        shade += np.float32(place.uniform(0, 0.1)) * fractal(place, size, 0.4, 18.0, 3.0, place.uniform(0, np.pi))
        mix(ground, ramp(relief + cover, 0, 2.5) * np.float32(place.uniform(0, 0.8)), covers.ROCK)
    ground *= np.maximum(shade, np.float32(0.25)) * np.float32(np.exp(place.normal(-0.12, 0.3)))

    if place.random() < kind.farms:
        level = place.normal(*kind.farm_level)
        covers.farm(place, ground, ramp(relief, level, level + 0.08), of.season, size)
    if place.random() < kind.barren:
        level = place.normal(1.0, 0.6)
        covers.barren(place, ground, ramp(cover + fine * np.float32(0.1), level, level + 0.6), size)
    if place.random() < kind.towns:
        level = place.normal(*kind.town_level)
        covers.town(place, ground, ramp(cover - relief * np.float32(0.5), level, level + 0.2), size)
    _wet(place, kind, ground, relief, cover)
    if of.site.biome == "mountains":
        line = 1.4 - 2.2 * (1 - of.season) + place.normal(0, 0.3)
        snow = ramp(relief + np.float32(0.25) * cover, line, line + 0.3)
        mix(ground, snow, spectrum_of(covers.SNOW) * np.clip(1 + np.float32(1.6) * slope, 0.2, 1.15))
    if of.site.biome == "ice":
        covers.winter(place, ground, relief, cover, slope)
    if of.site.biome == "salt":
        level = place.normal(-0.5, 1.0)
        covers.pan(place, ground, ramp(relief + cover * np.float32(0.2), level + 0.3, level))
    return np.maximum(ground, _FLOOR, out=ground)


def _vegetation(
    place: np.random.Generator, kind: Character, season: float, relief: Field, cover: Field, fine: Field
) -> Field:
    """Compose plants, dry grass and woods over bare soil."""
    soil = kind.soil or SOILS[int(place.choice(len(SOILS), p=SOIL_SHARES))]
    ground: Field = np.empty((len(BANDS), *relief.shape), np.float32)
    ground[:] = spectrum_of(soil)
    if kind.green:
        green = kind.green * (1 if kind.evergreen else 0.55 + 0.6 * season) + place.normal(0, 0.08)
        share: Field = np.float32(green) + np.float32(0.13) * cover + np.float32(0.05) * fine
        mix(ground, np.clip(share, 0, 1), kind.plant)
    if not kind.evergreen:
        mix(ground, ramp(cover + relief * np.float32(0.5), 0.2, 2) * np.float32(0.8 * (1 - season)), covers.DRY_GRASS)
        woods = np.float32(place.uniform(0, 0.9))
        mix(ground, ramp(cover - relief * np.float32(0.6), 0.4, 2.2) * woods, covers.FOREST)
    return ground


def _wet(place: np.random.Generator, kind: Character, ground: Field, relief: Field, cover: Field) -> None:
    """Add lakes and sea on low ground, and a river along a contour of a smooth field."""
    size = len(relief)
    glint = place.uniform(0.02, 0.14) if place.random() < 0.15 else 0.0
    if kind is CHARACTERS["sea"]:
        glint = place.uniform(0.02, 0.30) if place.random() < 0.5 else 0.0
    if place.random() < kind.water:
        level = place.normal(*kind.water_level)
        share = ramp(relief + cover * np.float32(0.1), level + 0.06, level)
    elif place.random() < 0.25:
        width = place.uniform(0.02, 0.07)
        share = ramp(np.abs(fractal(place, size, 1.3, 150.0)), width * 1.3, width)
    else:
        return
    covers.water(place, ground, share, glint, size)


def _slope(relief: Field, of: Scene) -> Field:
    """Return the slope towards the sun [arbitrary unit, -0.5 to 0.5]; positive slopes are lit."""
    east = -np.float32(np.sin(of.sun_azimuth)) * ndimage.sobel(relief, 1)
    north = np.float32(np.cos(of.sun_azimuth)) * ndimage.sobel(relief, 0)
    slope: Field = np.clip(east + north, -2, 2) * np.float32(0.25)
    return slope
