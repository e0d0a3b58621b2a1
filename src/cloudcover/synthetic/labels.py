"""Simulated human labels, and the ways in which they go wrong.

An ordinary label is slightly too large and too smooth, and misses small clouds and thin edges. A wrong label has one of
the errors seen in the real set, `LABEL_ERRORS`. It must satisfy `is_wrong`; otherwise another one is drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from cloudcover.data.label_errors import LABEL_ERRORS
from cloudcover.masks.overlap import iou
from cloudcover.synthetic.clouds import THRESHOLD
from cloudcover.synthetic.noise import Mask, fractal
from cloudcover.synthetic.scene import Chip

WRONG_IOU = 0.7
WRONG_SHARE = 0.05


def is_wrong(label: Mask, truth: Mask) -> bool:
    """Return whether a label is wrong: IoU below `WRONG_IOU`, and more than `WRONG_SHARE` of all pixels differ."""
    return bool(iou(label, truth) < WRONG_IOU) and float(np.mean(label ^ truth)) > WRONG_SHARE


def human(chip: Chip, rng: np.random.Generator) -> Mask:
    """Draw the label of a careful annotator.

    Args:
        chip: Picture and true mask of the chip.
        rng: Random number generator of the annotator.

    Returns:
        (size, size) bool, True for cloud. A label that is too imprecise is redrawn with more care.
    """
    for haste in (1.0, 0.5, 0.25):
        label = _drawn(chip, rng, haste)
        if iou(label, chip.mask) > WRONG_IOU:
            return label
    return chip.mask


def _drawn(chip: Chip, rng: np.random.Generator, haste: float) -> Mask:
    seen = chip.opacity > np.float32(THRESHOLD * (1 + haste * rng.uniform(0, 0.3)))
    seen = _without_small(seen, int(haste * rng.uniform(10, 60)))
    blurred = ndimage.uniform_filter(seen.astype(np.float32), 1 + 2 * round(haste * rng.uniform(1.0, 2.6)))
    label: Mask = blurred > np.float32(rng.uniform(0.1, 0.35))
    return ~_without_small(~label, int(haste * rng.uniform(10, 80)))


def _without_small(mask: Mask, pixels: int) -> Mask:
    """Remove connected regions of fewer pixels."""
    numbers, count = ndimage.label(mask)
    if not count:
        return mask
    keep = np.bincount(numbers.ravel()) >= pixels
    keep[0] = False
    out: Mask = keep[numbers]
    return out


def _blobs(rng: np.random.Generator, size: int, share: float) -> Mask:
    """Generate smooth blobs that cover a share of the chip."""
    field = fractal(rng, size, 1.0, size / 2)
    out: Mask = field > np.quantile(field[::4, ::4], 1 - share)
    return out


def _empty_over_cloud(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Mark nothing."""
    return np.zeros_like(label)


def _inverted(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Exchange clear and cloud."""
    return ~label


def _swapped(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Use the mask of another chip of the scene."""
    return other


def _shifted(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Shift the label by 15 to 50 % of the chip's side, repeating the border."""
    size = len(label)
    angle, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.15, 0.5)
    index = np.arange(size)
    rows = np.clip(index - round(length * np.sin(angle)), 0, size - 1)
    columns = np.clip(index - round(length * np.cos(angle)), 0, size - 1)
    out: Mask = label[rows[:, None], columns[None, :]]
    return out


def _coarse(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Replace the clouds by a few round blobs, with most of the detail lost."""
    size = len(label)
    width = max(8, round(size * rng.uniform(0.15, 0.35)))
    density = ndimage.uniform_filter(label.astype(np.float32), width)
    wobble = fractal(rng, size, 1.0, size / 2) * np.float32(0.12)
    out: Mask = density + wobble > np.float32(rng.uniform(0.1, 0.35))
    return out


def _artefact(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Fill a wedge from a point near the border with cloud, or cut it out of the cloud."""
    size = len(label)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    side = rng.uniform(0, 2 * np.pi)
    row, column = size * (0.5 + 0.5 * np.array([np.sin(side), np.cos(side)]))
    towards = side + np.pi + rng.normal(0, 0.3)
    half = rng.uniform(0.25, 0.7)
    bearing = np.arctan2(rows - np.float32(row), columns - np.float32(column))
    inside = np.abs((bearing - towards + np.pi) % (2 * np.pi) - np.pi) < half
    fill = float(np.mean(label[inside])) < 0.5 if inside.any() else True
    return np.where(inside, fill, label)


def _stripes(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Draw stripes along one border: cloud on a mostly clear chip, clear on a mostly cloudy one."""
    size = len(label)
    period = int(rng.integers(4, max(6, size // 8)))
    depth = int(size * rng.uniform(0.3, 1.0))
    line = np.arange(size)
    stripe = (line < depth) & (line % period < period * rng.uniform(0.4, 0.8))
    inside = np.rot90(np.broadcast_to(stripe, (size, size)), int(rng.integers(4)))
    return np.where(inside, float(np.mean(label)) < 0.5, label)


def _false_cloud(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Mark water or bright ground as cloud."""
    near_infrared, red = chip.bands[3].astype(np.float32), chip.bands[2].astype(np.float32)
    look = -near_infrared if rng.random() < 0.5 else red
    look = ndimage.uniform_filter(look, 5)
    clear = ~chip.mask
    if not clear.any():
        return label
    level = np.quantile(look[clear], 1 - rng.uniform(0.15, 0.6))
    return _without_small(label | (clear & (look >= level)), 20)


def _missed_cloud(label: Mask, chip: Chip, other: Mask, rng: np.random.Generator) -> Mask:
    """Omit thin clouds, or some clouds at random, or part of a cloud that fills the chip."""
    if rng.random() < 0.5 and label.any():
        seen = ndimage.uniform_filter(chip.opacity, 5)
        thick: Mask = label & (seen > np.quantile(seen[label], rng.uniform(0.35, 0.8)))
        return thick
    numbers, count = ndimage.label(label)
    keep = rng.random(count + 1) < 0.4
    keep[0] = False
    large = np.bincount(numbers.ravel(), minlength=count + 1) > label.size / 4
    keep |= large & (np.arange(count + 1) > 0)
    out: Mask = keep[numbers] & ~(large[numbers] & _blobs(rng, len(label), rng.uniform(0.4, 0.7)))
    return out


Error = Callable[[Mask, Chip, Mask, np.random.Generator], Mask]
_MAKERS: dict[str, Error] = {
    "empty_over_cloud": _empty_over_cloud,
    "inverted": _inverted,
    "swapped": _swapped,
    "shifted": _shifted,
    "coarse": _coarse,
    "artefact": _artefact,
    "stripes": _stripes,
    "false_cloud": _false_cloud,
    "missed_cloud": _missed_cloud,
}
# How often each of `LABEL_ERRORS` is tried first. Omissions, and false alarms over water and bright ground, are common
# and also the harmful errors, because a model can learn them.
_WEIGHTS = np.array([3.0, 1.5, 1.0, 1.0, 1.0, 1.0, 0.7, 3.0, 2.0])


def spoil(label: Mask, chip: Chip, other: Callable[[], Mask], rng: np.random.Generator) -> tuple[Mask, str]:
    """Turn a label into a wrong one.

    Args:
        label: An ordinary label.
        chip: Picture and true mask that the label belongs to.
        other: Function that makes the mask of another chip; called only if needed.
        rng: Random number generator of the error.

    Returns:
        A label that satisfies `is_wrong`, and the error's name in `LABEL_ERRORS`. The kinds are tried in a weighted
        random order, three times each. There is always a result, because an inverted mask is wrong for every chip.
    """
    order = rng.choice(len(LABEL_ERRORS), len(LABEL_ERRORS), replace=False, p=_WEIGHTS / _WEIGHTS.sum())
    kinds = [LABEL_ERRORS[i] for i in order]
    for kind in [*kinds, "inverted"]:
        for _ in range(3):
            wrong = _MAKERS[kind](label, chip, other() if kind == "swapped" else label, rng)
            if is_wrong(wrong, chip.mask):
                return wrong, kind
    return ~chip.mask, "inverted"
