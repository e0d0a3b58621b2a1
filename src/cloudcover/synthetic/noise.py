"""Random fields with a power-law spectrum, the raw material of land and clouds.

The variance of natural fields follows a power law of scale. It is given by the Hurst exponent H: the amplitude spectrum
of a two-dimensional field is k^-(H + 1) (Mandelbrot 1982). Cloud fields have H near 1/3; the exponential of such a
field is multifractal (Schertzer and Lovejoy 1987, doi 10.1029/JD092iD08p09693).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@lru_cache(maxsize=8)
def _frequencies(size: int) -> tuple[Field, Field]:
    """Return row and column frequencies of a real FFT in cycles per pixel: (size, 1) and (1, size // 2 + 1)."""
    rows = np.fft.fftfreq(size).astype(np.float32)[:, None]
    columns = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    return rows, columns


@lru_cache(maxsize=64)
def _isotropic(size: int, hurst: float, outer: float) -> Field:
    rows, columns = _frequencies(size)
    return _amplitude(rows**2 + columns**2, hurst, outer)


def _amplitude(squared: Field, hurst: float, outer: float) -> Field:
    amplitude: Field = (squared + np.float32(1 / outer**2)) ** np.float32(-(hurst + 1) / 2)
    amplitude[0, 0] = 0
    return amplitude


def fractal(
    rng: np.random.Generator, size: int, hurst: float, outer: float, stretch: float = 1.0, angle: float = 0.0
) -> Field:
    """Generate a Gaussian field of mean 0 and standard deviation 1.

    Args:
        rng: Random number generator.
        size: Height and width [pixels].
        hurst: Hurst exponent; 0 is rough, 1 is smooth.
        outer: Scale above which the variance no longer grows [pixels].
        stretch: Ratio of length to width of the structures.
        angle: Direction of the long side, from the column axis towards the row axis [radians].

    Returns:
        (size, size) float32. The field is periodic; where that matters, generate a larger one and crop it.
    """
    if stretch == 1.0:
        amplitude = _isotropic(size, hurst, outer)
    else:
        rows, columns = _frequencies(size)
        along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
        across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
        root = np.float32(np.sqrt(stretch))
        along, across = along * root, across / root
        squared: Field = along * along + across * across
        amplitude = _amplitude(squared, hurst, outer)
    spectrum = rng.standard_normal((size, size // 2 + 1, 2), dtype=np.float32).view(np.complex64)[..., 0]
    spectrum *= amplitude
    field: Field = fft.irfft2(spectrum, s=(size, size), overwrite_x=True)
    field *= np.float32(1) / np.sqrt(np.einsum("ij,ij->", field, field) / np.float32(field.size))
    return field


def wave(rng: np.random.Generator, rows: NDArray[np.float64], columns: NDArray[np.float64], scale: float) -> Field:
    """Evaluate a smooth random field (mean 0, standard deviation about 1) at any coordinates.

    The field is a sum of eight plane waves. Unlike `fractal` it needs no grid, so neighbouring chips can share it.

    Args:
        rng: Random number generator; the same state gives the same field.
        rows: Row coordinates [any unit].
        columns: Column coordinates, broadcast against `rows`.
        scale: Typical wavelength, in the coordinates' unit.
    """
    angles, phases = rng.uniform(0, 2 * np.pi, (2, 8))
    lengths = scale * np.exp(rng.normal(0, 0.4, 8))
    total = np.zeros(np.broadcast_shapes(rows.shape, columns.shape))
    for angle, phase, length in zip(angles, phases, lengths, strict=True):
        total += np.cos(2 * np.pi / length * (rows * np.sin(angle) + columns * np.cos(angle)) + phase)
    return (total / 2).astype(np.float32)
