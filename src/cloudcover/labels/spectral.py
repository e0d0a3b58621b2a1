"""Evidence from the pixels alone: clouds are bright and white; plants and dark water are not cloud.

Thresholds are in reflectance and follow the usual Sentinel-2 tests (Hollstein et al. 2016, Sen2Cor's scene
classification). They are deliberately loose, because none of them decides alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.values import DN_PER_REFLECTANCE
from cloudcover.labels.geometry import reduce

Floats = NDArray[np.float64]

VISIBLE = ("B02", "B03", "B04")
BLUE, RED, NIR = "B02", "B04", "B08"
BRIGHT = 0.40
"""Mean visible reflectance above which white ground is rare."""
WHITENESS = 0.15
"""Mean relative deviation of the visible bands from their mean, below which a pixel is white."""
DARK = 0.09
"""Mean visible reflectance below which even thin cloud is rare."""
GREEN = 0.6
"""NDVI above which a pixel is dense vegetation."""
BINS = 256
"""Number of histogram bins; a bin number fits in a byte."""
CELLS = 64
"""Side of the reduced chips for measuring separability [cells]."""


def spectral_evidence(dn: NDArray[np.uint16], labels: NDArray[np.uint8], bands: list[str]) -> dict[str, Floats]:
    """Measure the pixels whose colour contradicts the label.

    Args:
        dn: N x B x H x W uint16 [DN].
        labels: N x H x W uint8 of {0, 1, 255}; 255 (unknown, no data) is ignored.
        bands: Names of the bands, in order.

    Returns:
        N values each: `bright_outside_share`, bright white pixels labelled clear; `dark_inside_share` and
        `green_inside_share`, dark or densely vegetated pixels labelled cloud, all as shares of the known pixels (0 if
        the bands for it are missing); `brightness_auc`, probability that a random cloud pixel of the label is brighter
        than a random clear one: 0.5 = unrelated, below = inverted (0.5 if the label has one class only); `haze_auc`,
        the same for `haze`, which detects thin cloud that brightness does not.
    """
    visible = [bands.index(b) for b in VISIBLE if b in bands]
    known, cloud, clear = labels != IGNORE_INDEX, labels == 1, labels == 0
    number = np.maximum(known.sum(axis=(1, 2)), 1)
    reflectance = np.multiply(dn, np.float32(1 / DN_PER_REFLECTANCE), dtype=np.float32)
    channels = [reflectance[:, i] for i in visible or range(len(bands))]
    brightness = np.asarray(sum(channels[1:], start=channels[0]) / len(channels), np.float32)
    columns = {name: np.zeros(len(dn)) for name in ("bright_outside_share", "dark_inside_share", "green_inside_share")}
    if visible:
        deviation = sum(np.abs(c - brightness) for c in channels)
        white = deviation < np.float32(WHITENESS * len(channels)) * brightness
        columns["bright_outside_share"] = (clear & white & (brightness > BRIGHT)).sum(axis=(1, 2)) / number
        columns["dark_inside_share"] = (cloud & (brightness < DARK)).sum(axis=(1, 2)) / number
    if RED in bands and NIR in bands:
        red, nir = reflectance[:, bands.index(RED)], reflectance[:, bands.index(NIR)]
        columns["green_inside_share"] = (cloud & (nir - red > GREEN * (nir + red))).sum(axis=(1, 2)) / number
    columns["brightness_auc"] = _auc(brightness, cloud, clear)
    columns["haze_auc"] = _auc(haze(reflectance, bands) * np.float32(2), cloud, clear)
    return columns


def haze(reflectance: NDArray[np.float32], bands: list[str]) -> NDArray[np.float32]:
    """Compute the haze-optimised transform, blue - red / 2: land is near one line of the two bands, thin cloud off it.

    Zhang, Guindon & Cihlar 2002, "An image transform to characterize and compensate for spatial variations in thin
    cloud contamination"; with the slope of Zhu & Woodcock 2012 (Fmask).

    Args:
        reflectance: N x B x H x W float32.
        bands: Names of the bands, in order.

    Returns:
        N x H x W float32 [reflectance]; half the first band if blue or red is missing.
    """
    if BLUE in bands and RED in bands:
        return np.asarray(reflectance[:, bands.index(BLUE)] - reflectance[:, bands.index(RED)] / 2, np.float32)
    return np.asarray(reflectance[:, 0] / 2, np.float32)


def separability(dn: NDArray[np.uint16], masks: NDArray[np.uint8]) -> Floats:
    """Measure how well the chip's own colours separate the two classes of a mask.

    This is Fisher's linear discriminant (1936) of the bands and their logarithms within each chip, on means of cells. A
    mask drawn around visible clouds separates well; a mask of another chip, or a shifted or coarse one, does not. No
    other chip and no model are needed.

    Args:
        dn: N x B x H x W uint16 [DN].
        masks: N x H x W uint8 of {0, 1, 255}.

    Returns:
        N float64, area under the ROC curve of the discriminant, 0.5-1; NaN if a class has less than 1 % of the cells.
    """
    side = min(CELLS, *masks.shape[1:])
    known = reduce(masks != IGNORE_INDEX, side) == 1
    cloud = known & (reduce(masks == 1, side) > 0.5)
    clear = known & ~cloud
    values = reduce(dn.reshape(-1, *dn.shape[2:]), side).reshape(*dn.shape[:2], side * side)
    values = np.concatenate([values / DN_PER_REFLECTANCE, np.log(values + 1.0)], axis=1)
    weights = [c.reshape(len(c), -1).astype(np.float32) for c in (cloud, clear)]
    counts = np.stack([w.sum(axis=1) for w in weights], axis=1)
    means = [np.einsum("nfp,np->nf", values, w) / np.maximum(w.sum(axis=1), 1)[:, None] for w in weights]
    scatter = np.zeros((len(dn), values.shape[1], values.shape[1]))
    for mean, weight in zip(means, weights, strict=True):
        centred = (values - mean[:, :, None]) * np.sqrt(weight)[:, None]
        scatter += centred @ centred.transpose(0, 2, 1)
    size = np.trace(scatter, axis1=1, axis2=2)[:, None, None] / values.shape[1]
    scatter += (1e-4 * size + 1e-9) * np.eye(values.shape[1])
    direction = np.linalg.solve(scatter, (means[0] - means[1])[..., None])[..., 0]
    score = np.einsum("nf,nfp->np", direction, values)
    seen = known.reshape(score.shape)
    low = np.where(seen, score, np.inf).min(axis=1, keepdims=True)
    high = np.where(seen, score, -np.inf).max(axis=1, keepdims=True)
    low, high = (np.where(np.isfinite(x), x, 0) for x in (low, high))
    score = ((score - low) / np.maximum(high - low, 1e-12)).reshape(cloud.shape).astype(np.float32)
    small = counts.min(axis=1) < 0.01 * side * side
    return np.where(small, np.nan, _auc(score, cloud, clear))


def _auc(values: NDArray[np.float32], positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> Floats:
    """Compute the ROC area per chip from histograms of `BINS` bins over 0-1; ties within a bin count half."""
    number = len(values)
    places = np.clip(values * BINS, 0, BINS - 1).astype(np.uint8)
    p, n = np.empty((2, number, BINS))
    for i in range(number):
        p[i] = np.bincount(places[i][positive[i]], minlength=BINS)
        n[i] = np.bincount(places[i][negative[i]], minlength=BINS)
    below = np.cumsum(n, axis=1) - n / 2
    pairs = p.sum(axis=1) * n.sum(axis=1)
    return np.asarray(np.divide((p * below).sum(axis=1), pairs, out=np.full(number, 0.5), where=pairs > 0))
