"""The atmosphere between ground and sensor: surface reflectance becomes top-of-atmosphere reflectance.

The light that air molecules scatter into the sensor is tau P / (4 cos(sun)) for a view straight down, in single
scattering, with Rayleigh's phase function P (Vermote et al. 2006, 6S manual). Aerosol adds a paler veil. Ozone takes
most from green and red, water vapour from near infrared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudcover.synthetic.noise import Field

Bands = tuple[float, float, float, float]
"""A number for each of B02, B03, B04 and B08."""

RAYLEIGH = (0.160, 0.093, 0.046, 0.018)  # optical thickness at sea level: 0.008735 lambda^-4.08, lambda in micrometres
MULTIPLE = 1.15  # several scatterings together, relative to one
AEROSOL = (1.0, 0.85, 0.70, 0.50)  # its light relative to that in blue
OZONE = (0.006, 0.030, 0.020, 0.001)  # optical thickness of 300 Dobson units
VAPOUR = (0.0, 0.0, 0.003, 0.020)  # likewise of usual water vapour, in broad bands
BELOW_CLOUD = 0.6  # share of the scattering air that lies below the top of a cloud and is hidden by it


@dataclass(frozen=True)
class Air:
    """An atmosphere.

    Attributes:
        path: reflectance of the air itself, by band.
        through: share of the light that passes the scattering air on both ways, by band [0-1].
        gas: share of the light that ozone and water vapour let pass, by band [0-1].
    """

    path: Bands
    through: Bands
    gas: Bands

    def put_before(self, band: Field, index: int, opacity: Field) -> None:
        """Turn reflectance below the air into reflectance above it, in place.

        Args:
            band: (size, size) reflectance of ground and clouds.
            index: number of the band.
            opacity: of the clouds, which hide the air below them (size, size) [0-1].
        """
        seen = 1 - np.float32(BELOW_CLOUD) * opacity
        band *= 1 - np.float32(1 - self.through[index]) * seen
        band += np.float32(self.path[index]) * seen
        band *= np.float32(self.gas[index])


def air(rng: np.random.Generator, sun_elevation: float) -> Air:
    """Draw an atmosphere.

    Args:
        rng: source of randomness.
        sun_elevation: above the horizon [radians]; the lower the sun, the brighter the air.
    """
    sine = float(np.sin(sun_elevation))
    phase = 0.75 * (1 + sine**2)  # the angle from the sun to the sensor is 90 degrees and the sun's elevation
    veil = float(rng.gamma(2.0, 0.008))
    pressure = float(rng.uniform(0.85, 1.05))
    ways = 1 + 1 / sine
    ozone, vapour = float(rng.uniform(0.8, 1.4)), float(rng.lognormal(0.0, 0.5))
    rayleigh = [MULTIPLE * pressure * tau for tau in RAYLEIGH]
    path = [tau * phase / (4 * sine) + veil * share for tau, share in zip(rayleigh, AEROSOL, strict=True)]
    # Half of the scattered light goes on and reaches its aim all the same.
    through = [float(np.exp(-0.5 * tau * ways - veil * share)) for tau, share in zip(rayleigh, AEROSOL, strict=True)]
    gas = [float(np.exp(-ways * (ozone * o + vapour * v))) for o, v in zip(OZONE, VAPOUR, strict=True)]
    return Air(_bands(path), _bands(through), _bands(gas))


def _bands(values: list[float]) -> Bands:
    blue, green, red, infrared = values
    return blue, green, red, infrared
