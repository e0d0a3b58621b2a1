"""Prediction of an image of any size: overlapping windows, blended smoothly, in bounded memory.

An image that fits into one window is predicted like a chip. Memory use is 5 bytes per pixel for the result, and three
strips of the image with the height of a window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cloudcover.models.border import STRIDE
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.predictor import Predictor
from cloudcover.predict.resolution import resample, resample_back
from cloudcover.predict.windows import Span, least_side, spans, whole
from cloudcover.rasters.image import Image
from cloudcover.runtime.prefetch import prefetch

WINDOW = 1024
"""Maximum height and width of a window [pixels of the network]."""
OVERLAP = 128
"""Minimum overlap of neighbouring windows [pixels of the network]."""
LARGEST_WINDOW = 4096
"""Maximum height and width of a window if the image has smaller pixels than the network [pixels of the image]."""
CPU_WINDOWS = 2
"""Maximum number of windows per forward pass on a CPU, because more need memory and save no time."""


class Strip(NamedTuple):
    """Rows of an image in memory.

    Attributes:
        span: Placement of the windows along the rows.
        dn: B x H x W uint16 [DN], all columns.
    """

    span: Span
    dn: NDArray[np.uint16]


class Probabilities(NamedTuple):
    """The models' prediction for an image.

    Attributes:
        values: H x W float32 in [0, 1].
        empty: H x W bool, True where any band has no data.
    """

    values: NDArray[np.float32]
    empty: NDArray[np.bool_]


def predict_scene(
    image: Image,
    predictor: Predictor,
    scale: float = 1.0,
    seen: Callable[[int, NDArray[np.uint16]], None] = lambda *_: None,
    window: int = WINDOW,
    overlap: int = OVERLAP,
) -> Probabilities:
    """Predict an image.

    Args:
        image: Image, read in strips from one thread at a time.
        predictor: The models.
        scale: Pixels of the network per pixel of the image along a side; windows are resampled by it, and their
            probabilities back.
        seen: Function called with each part of the image once, from top to bottom: its first row, and B x H x W [DN].
        window: See `WINDOW`.
        overlap: See `OVERLAP`.

    Raises:
        ChipError: The image cannot be read.
        NotFiniteError: As for `Predictor.probabilities`, and also EnsembleError, PolicyError and DeviceMemoryError.
    """
    height, width = image.grid.height, image.grid.width
    most = min(int(window / scale), LARGEST_WINDOW)
    shared = min(int(overlap / scale), most // 2)
    fits = max(height, width) <= most
    side = max(
        least_side(n, most, shared, STRIDE) for n in (height, width)
    )  # square, because policies may turn windows
    rows, columns = ([whole(n)] if fits else spans(n, side, shared) for n in (height, width))
    result = Probabilities(np.zeros((height, width), np.float32), np.zeros((height, width), bool))
    at_once = _at_once(predictor, window)
    known = 0
    bar = tqdm(
        total=len(rows) * len(columns), desc=image.name, unit="window", disable=True if fits else None, leave=None
    )
    with bar, ThreadPoolExecutor(1) as reader:
        for strip in prefetch(reader, lambda span: _read(image, span), rows, 1):
            reach = strip.span.reach
            result.empty[reach] = (strip.dn == predictor.card.nodata).any(axis=0)
            if reach.stop > known:
                seen(known, strip.dn[:, known - reach.start :])
                known = reach.stop
            for start in range(0, len(columns), at_once):
                part = columns[start : start + at_once]
                _add(result.values, strip, part, predictor, scale)
                bar.update(len(part))
    return result


def _at_once(predictor: Predictor, window: int) -> int:
    """Return the number of windows per forward pass: as many pixels as a batch of chips, but few on a CPU."""
    most = max(1, predictor.batch * predictor.card.chip_size**2 // window**2)
    return most if predictor.device == "cuda" else min(most, CPU_WINDOWS, len(os.sched_getaffinity(0)))


def _read(image: Image, span: Span) -> Strip:
    return Strip(span, image.read(span.reach, slice(0, image.grid.width)))


def _add(total: NDArray[np.float32], strip: Strip, columns: Sequence[Span], predictor: Predictor, scale: float) -> None:
    """Add the weighted probabilities of some windows of a strip; windows without data are skipped."""
    rows = strip.span
    shown = strip.dn.take(rows.source - rows.reach.start, axis=1) if _mirrors(rows) else strip.dn
    cut = [(span, shown.take(span.source, axis=2) if _mirrors(span) else shown[:, :, span.reach]) for span in columns]
    filled = [(span, dn) for span, dn in cut if not (dn == predictor.card.nodata).any(axis=0).all()]
    if not filled:
        return
    windows = np.stack([dn for _, dn in filled])
    for (span, _), found in zip(filled, _probabilities(predictor, windows, scale), strict=True):
        weights = rows.weights[:, np.newaxis] * span.weights
        total[rows.target, span.target] += found[rows.inner, span.inner] * weights


def _mirrors(span: Span) -> bool:
    return span.inner != slice(0, len(span.source))


def _probabilities(predictor: Predictor, dn: NDArray[np.uint16], scale: float) -> NDArray[np.float32]:
    """Predict N x H x W from windows N x B x H x W, at the network's own pixel size."""
    height, width = dn.shape[2:]
    nodata = predictor.card.nodata
    if scale != 1:
        dn = resample(dn, (max(1, round(height * scale)), max(1, round(width * scale))), nodata)
    percentiles = np.zeros((*dn.shape[:2], 2), np.float32)
    if predictor.normalize.needs_percentiles:
        percentiles = chip_percentiles(dn, nodata)
    found = predictor.probabilities(dn, percentiles)
    return found if scale == 1 else resample_back(found, (height, width))
