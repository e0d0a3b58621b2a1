"""The atmosphere between ground and sensor, which turns surface reflectance into top-of-atmosphere reflectance.

For a nadir view and single scattering, air molecules scatter tau P / (4 cos(sun)) of the light into the sensor, with
Rayleigh's phase function P (Vermote et al. 2006, 6S manual). Aerosol adds a paler veil. Ozone absorbs mostly green and
red light, and water vapour absorbs near infrared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cloudcover.synthetic.noise import Field

Bands = tuple[float, float, float, float]
"""One number for each of B02, B03, B04 and B08."""

RAYLEIGH = (0.160, 0.093, 0.046, 0.018)  # optical thickness at sea level: 0.008735 lambda^-4.08, lambda in micrometres
MULTIPLE = 1.15  # multiple scattering, relative to single scattering
AEROSOL = (1.0, 0.85, 0.70, 0.50)  # its brightness relative to blue
OZONE = (0.006, 0.030, 0.020, 0.001)  # optical thickness of 300 Dobson units
VAPOUR = (0.0, 0.0, 0.003, 0.020)  # the same for average water vapour, in broad bands
BELOW_CLOUD = 0.6  # share of the scattering air that is below the top of a cloud and thus hidden


@dataclass(frozen=True)
class Air:
    """The optical properties of an atmosphere.

    Attributes:
        path: Path reflectance of the air, by band.
        through: Transmittance of the scattering air, down and up, by band [0-1].
        gas: Transmittance of ozone and water vapour, by band [0-1].
    """

    path: Bands
    through: Bands
    gas: Bands

    def put_before(self, band: Field, index: int, opacity: Field) -> None:
        """Turn reflectance below the atmosphere into reflectance above it, in place.

        Args:
            band: (size, size) reflectance of ground and clouds.
            index: Number of the band.
            opacity: Opacity of the clouds, which hide the air below them, (size, size) [0-1].
        """
        seen = 1 - np.float32(BELOW_CLOUD) * opacity
        band *= 1 - np.float32(1 - self.through[index]) * seen
        band += np.float32(self.path[index]) * seen
        band *= np.float32(self.gas[index])


def air(rng: np.random.Generator, sun_elevation: float) -> Air:
    """Draw an atmosphere.

    Args:
        rng: Random number generator.
        sun_elevation: Sun elevation [radians]; the lower the sun, the brighter the air.
    """
    sine = float(np.sin(sun_elevation))
    phase = 0.75 * (1 + sine**2)  # the scattering angle is 90 degrees plus the sun's elevation
    veil = float(rng.gamma(2.0, 0.008))
    pressure = float(rng.uniform(0.85, 1.05))
    ways = 1 + 1 / sine
    ozone, vapour = float(rng.uniform(0.8, 1.4)), float(rng.lognormal(0.0, 0.5))
    rayleigh = [MULTIPLE * pressure * tau for tau in RAYLEIGH]
    path = [tau * phase / (4 * sine) + veil * share for tau, share in zip(rayleigh, AEROSOL, strict=True)]
    # Half of the scattered light continues forwards and still arrives.
    through = [float(np.exp(-0.5 * tau * ways - veil * share)) for tau, share in zip(rayleigh, AEROSOL, strict=True)]
    gas = [float(np.exp(-ways * (ozone * o + vapour * v))) for o, v in zip(OZONE, VAPOUR, strict=True)]
    return Air(_bands(path), _bands(through), _bands(gas))


def _bands(values: list[float]) -> Bands:
    blue, green, red, infrared = values
    return blue, green, red, infrared
