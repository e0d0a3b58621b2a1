"""The plan of a set: sites with a kind of land, scenes with date, sun and weather, and chips on a grid of the scene.

Everything is derived from (seed, names), never from the number of scenes or chips. So a larger set contains the scenes
of a smaller one with the same number of locations.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri

from cloudcover.config.sections import SyntheticParams
from cloudcover.runtime.files import derive_seed
from cloudcover.synthetic import atmosphere
from cloudcover.synthetic.atmosphere import Air
from cloudcover.synthetic.noise import wave

Biome = Literal[
    "savanna", "farmland", "forest", "desert", "coast", "lakes", "mountains", "town", "ice", "sea", "salt"
]  # fmt: skip
CloudKind = Literal["cumulus", "deck", "cirrus", "haze"]

# Shares are based on the band means of clear chips in the real set: mostly green land, 5-8 % dark water, few bright
# deserts.
BIOMES: dict[Biome, float] = {
    "savanna": 0.22, "farmland": 0.18, "forest": 0.21, "desert": 0.05, "coast": 0.18, "lakes": 0.08, "mountains": 0.04,
    "town": 0.05,
}  # fmt: skip
EXTREMES: dict[Biome, float] = {"ice": 0.45, "sea": 0.35, "salt": 0.20}
"""Land that is easily mistaken for cloud: snow and ice, bright or glinting water, pale pans. Used only on request."""
CLEARER = 1.5  # standard deviations by which their skies are clearer, so that the confusing ground is visible
LATITUDES: dict[Biome, tuple[float, float]] = {
    "savanna": (-25, 15), "farmland": (-38, 52), "forest": (-12, 10), "desert": (15, 32), "coast": (-35, 45),
    "lakes": (-5, 55), "mountains": (28, 48), "town": (-35, 50), "ice": (45, 68), "sea": (-50, 60), "salt": (-30, 38),
}  # fmt: skip
KINDS: dict[CloudKind, float] = {"cumulus": 0.45, "deck": 0.30, "cirrus": 0.15, "haze": 0.10}

# Distribution of true coverage: point masses at 0 and 1, and a beta distribution between them. With the default share
# of wrong labels, label coverage is distributed as in the real set: 6.6 % all clear, 25.8 % all cloud, mean 0.62.
ALL_CLEAR_SHARE = 0.05
ALL_CLOUD_SHARE = 0.30
BETWEEN = (0.70, 0.54)

FINE_M, COARSE_M = 10.0, 30.0  # pixel sizes of Sentinel-2 and Landsat
LEAST_DEPTH = 1.9  # the thinnest body of a cloud has an opacity of 0.12

GRID = 16  # chips are arranged in rows of 16 within a scene


@dataclass(frozen=True)
class Site:
    """A location.

    Attributes:
        index: Number of the site.
        biome: Kind of land.
        longitude: Longitude of the first chip [degrees].
        latitude: Latitude of the first chip [degrees].
        easting: Left edge of the first chip in its UTM zone [m].
        northing: Upper edge of the first chip [m].
        epsg: EPSG code of the UTM zone.
    """

    index: int
    biome: Biome
    longitude: float
    latitude: float
    easting: float
    northing: float
    epsg: int

    @property
    def name(self) -> str:
        """Name of the location in the metadata."""
        return f"site-{self.index:02d}"


@dataclass(frozen=True)
class Scene:
    """One acquisition of a site, shared by all chips of the scene.

    Attributes:
        index: Number of the scene.
        site: The site.
        time: Acquisition time, UTC.
        sun_azimuth: Azimuth of the sun, clockwise from north [radians].
        sun_elevation: Elevation of the sun above the horizon [radians].
        season: Greenness of the vegetation [0-1].
        kind: Prevailing kind of cloud.
        haze: Opacity of the haze, too thin to count as cloud [0-1].
        cloudiness: Standard normal number; higher is cloudier.
        thickness: Standard normal number; higher means thicker clouds.
        height: Height of the cloud tops [m].
        outer: Size of the largest clouds [pixels].
        wind: Direction of streaks [radians].
        tint: Reflectance of thick cloud in B02, B03, B04 and B08.
        ground: Number of the site's ground surface that the scene shows.
        pixel_m: Pixel size, 10 or 30 [m].
        air: Atmosphere in front of the ground; None for surface reflectance.
        gloom: Typical relative loss of light of dark clouds, in addition to the usual one.
        least_depth: Depth of the body of the thinnest clouds (`clouds.sky`).
        uneven: Unevenness of the clouds, relative to the usual value for their kind.
    """

    index: int
    site: Site
    time: dt.datetime
    sun_azimuth: float
    sun_elevation: float
    season: float
    kind: CloudKind
    haze: float
    cloudiness: float
    thickness: float
    height: float
    outer: float
    wind: float
    tint: tuple[float, float, float, float]
    ground: int = 0
    pixel_m: float = FINE_M
    air: Air | None = None
    gloom: float = 0.0
    least_depth: float = LEAST_DEPTH
    uneven: float = 1.0


@dataclass(frozen=True)
class Variety:
    """Differences of a set from Level-2A chips of ordinary land at 10 m; by default none.

    Attributes:
        toa: Share of scenes in top-of-atmosphere reflectance [0-1].
        coarse: Share of scenes with pixels of 30 m [0-1].
        extremes: Share of sites with snow and ice, sea, or salt; half this share of scenes each have dark, very thin,
            or smooth and towering clouds [0-1].
        grounds: Number of ground surfaces per site, which its scenes show in turn.
    """

    toa: float = 0.0
    coarse: float = 0.0
    extremes: float = 0.0
    grounds: int = 1

    @classmethod
    def of(cls, params: SyntheticParams) -> Variety:
        """Create it from the parameters."""
        return cls(params.toa, params.coarse, params.extremes, params.grounds)


PLAIN = Variety()


def _spread(index: int, shift: float, base: float) -> float:
    """Return point `index` of a low-discrepancy sequence in [0, 1), of which few points cover the range evenly."""
    return (shift + (index + 1) * base) % 1.0


def _pick(options: dict[Any, float], u: float) -> Any:
    edges = np.cumsum(list(options.values()))
    return list(options)[min(int(np.searchsorted(edges, u * edges[-1], side="right")), len(options) - 1)]


def _shift(seed: int, name: str) -> float:
    return derive_seed(seed, "sequence", name) / 2**31


@lru_cache(maxsize=256)
def site(seed: int, index: int, extremes: float = 0.0) -> Site:
    """Generate site number `index` of a seed; a share `extremes` of the sites is land easily mistaken for cloud."""
    rng = np.random.default_rng(derive_seed(seed, "site", index))
    biome: Biome = _pick(BIOMES, _spread(index, _shift(seed, "biome"), 0.6180339887))
    if extremes and _spread(index, _shift(seed, "extreme"), 0.3819660113) < extremes:
        biome = _pick(EXTREMES, _spread(index, _shift(seed, "which extreme"), 0.7548776662))
    latitude = float(rng.uniform(*LATITUDES[biome]))
    zone = int(rng.integers(1, 61))
    longitude = zone * 6 - 183 + float(rng.uniform(-2, 2))
    easting = 500_000 + (longitude - (zone * 6 - 183)) * 111_320 * np.cos(np.radians(latitude))
    northing = latitude * 110_600 + (10_000_000 if latitude < 0 else 0)
    return Site(
        index, biome, longitude, latitude, round(easting / 10) * 10.0, round(northing / 10) * 10.0,
        (32600 if latitude >= 0 else 32700) + zone,
    )  # fmt: skip


def _sun(time: dt.datetime, latitude: float, longitude: float) -> tuple[float, float]:
    """Return azimuth and elevation of the sun [radians], ignoring the equation of time (Iqbal 1983)."""
    day = time.timetuple().tm_yday
    declination = np.radians(23.45) * np.sin(2 * np.pi * (284 + day) / 365)
    hour = np.radians(15 * (time.hour + time.minute / 60 + longitude / 15 - 12))
    phi = np.radians(latitude)
    sine = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour)
    elevation = np.arcsin(np.clip(sine, 0.25, 1))
    azimuth = np.arctan2(
        -np.sin(hour) * np.cos(declination),
        np.cos(phi) * np.sin(declination) - np.sin(phi) * np.cos(declination) * np.cos(hour),
    )
    return float(azimuth), float(elevation)


@lru_cache(maxsize=256)
def scene(seed: int, index: int, locations: int, variety: Variety = PLAIN) -> Scene:
    """Generate scene number `index` of a seed; successive scenes cycle through the locations."""
    rng = np.random.default_rng(derive_seed(seed, "scene", index))
    where = site(seed, index % locations, variety.extremes)
    local = dt.datetime(2018, 2, 1, 10, 30) + dt.timedelta(
        days=float(int(rng.integers(0, 940))), seconds=int(rng.integers(-1800, 1800))
    )
    time = local - dt.timedelta(hours=where.longitude / 15)
    time = time.replace(microsecond=0)
    azimuth, elevation = _sun(time, where.latitude, where.longitude)
    day = time.timetuple().tm_yday / 365
    summer = np.cos(2 * np.pi * (day - 0.55)) * (1 if where.latitude >= 0 else -1)
    season = float(np.clip(0.5 + 0.5 * min(1, abs(where.latitude) / 30) * summer + rng.normal(0, 0.15), 0, 1))
    kind: CloudKind = _pick(KINDS, _spread(index, _shift(seed, "kind"), 0.5497004779))
    cloudiness = _normal(_spread(index, _shift(seed, "cloudiness"), 0.7548776662))
    thickness = _normal(_spread(index, _shift(seed, "thickness"), 0.5698402909))
    height = {"cumulus": 1500.0, "deck": 2000.0, "cirrus": 8000.0, "haze": 3000.0}[kind] * np.exp(rng.normal(0, 0.35))
    outer = {"cumulus": 150.0, "deck": 260.0, "cirrus": 300.0, "haze": 350.0}[kind] * np.exp(rng.normal(0, 0.4))
    bright = float(np.clip(rng.normal(1.07, 0.13), 0.8, 1.45))
    # In the real set, the reflectance of thick clouds falls by about a sixth from blue to near infrared, because the
    # atmospheric correction assumes clear air.
    slope = float(np.clip(rng.normal(0.17, 0.05), 0.06, 0.30))
    tint = (bright * (1 + slope), bright * (1 + 0.66 * slope), bright * (1 + 0.36 * slope), bright)
    plain = Scene(
        index=index,
        site=where,
        time=time,
        sun_azimuth=azimuth,
        sun_elevation=elevation,
        season=season,
        kind=kind,
        haze=float(rng.gamma(0.7, 0.015)),
        cloudiness=cloudiness,
        thickness=thickness,
        height=float(height),
        outer=float(np.round(outer)),
        wind=float(rng.uniform(0, np.pi)),
        tint=tint,
        ground=index // locations % variety.grounds,
    )
    return _varied(plain, variety, np.random.default_rng(derive_seed(seed, "variety", index)))


def _varied(plain: Scene, variety: Variety, rng: np.random.Generator) -> Scene:
    """Modify a scene according to the variety of its set."""
    shares = (variety.toa, variety.coarse, *(3 * [0.5 * variety.extremes]))
    toa, coarse, dark, thin, towering = rng.random(5) < shares
    changes: dict[str, Any] = {}
    if plain.site.biome in EXTREMES:
        changes["cloudiness"] = plain.cloudiness - CLEARER
    if toa:  # without that correction, thick cloud is nearly white
        bright = plain.tint[3] * float(rng.uniform(0.75, 1.0))
        slope = float(rng.uniform(-0.02, 0.08))
        changes["tint"] = tuple(bright * (1 + share * slope) for share in (1.0, 0.66, 0.36, 0.0))
        changes["air"] = atmosphere.air(rng, plain.sun_elevation)
    if coarse:
        changes["pixel_m"] = COARSE_M
    if dark:
        changes["gloom"] = float(rng.uniform(0.2, 0.6))
    if thin:
        changes |= {"least_depth": float(rng.uniform(0.9, LEAST_DEPTH)), "thickness": plain.thickness - 1.2}
    if towering and not thin:  # smooth white tops, as bright as snow
        changes |= {"thickness": plain.thickness + 3.5, "uneven": float(rng.uniform(0.0, 0.5))}
        brighter = float(rng.uniform(1.0, 1.2))
        changes["tint"] = tuple(brighter * share for share in changes.get("tint", plain.tint))
    return replace(plain, **changes)


def _normal(u: float) -> float:
    """Return a quantile of the standard normal distribution with its tails cut off."""
    return float(ndtri(np.clip(u, 0.005, 0.995)))


def coverage(seed: int, of: Scene, position: int) -> float:
    """Draw the cloud cover of a chip [0-1] from the scene's weather, its drift across the grid, and chance.

    A Gaussian copula preserves the distribution of real labels over all chips.
    """
    rng = np.random.default_rng(derive_seed(seed, "weather", of.index))
    row, column = divmod(position, GRID)
    drift = float(wave(rng, np.array(float(row)), np.array(float(column)), 9.0))
    chance = np.random.default_rng(derive_seed(seed, "cover", of.index, position)).normal()
    u = float(ndtr(0.65 * of.cloudiness + 0.45 * drift + 0.6124 * chance))
    if u < ALL_CLEAR_SHARE:
        return 0.0
    if u > 1 - ALL_CLOUD_SHARE:
        return 1.0
    return float(betaincinv(*BETWEEN, (u - ALL_CLEAR_SHARE) / (1 - ALL_CLEAR_SHARE - ALL_CLOUD_SHARE)))


def chip_counts(seed: int, scenes: int, chips: int) -> list[int]:
    """Return the number of chips per scene: uneven as in the real set, and at least one if there are enough chips."""
    base = [1 if index < chips else 0 for index in range(scenes)]
    rest = chips - sum(base)
    weights = np.array([0.5 + derive_seed(seed, "size", index) / 2**31 for index in range(scenes)])
    exact = rest * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: rest - int(counts.sum())]:
        counts[index] += 1
    return [a + int(b) for a, b in zip(base, counts, strict=True)]
