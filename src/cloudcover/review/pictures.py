"""Pictures of chips: colours with one stretch per scene, and masks as bytes from which the page draws every layer."""

from __future__ import annotations

import io
import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.colours import displayed, false_bands, true_bands
from cloudcover.data.store import ChipStore
from cloudcover.masks.overlap import iou
from cloudcover.review.predictions import Predictions

SMALL = 256
"""Longest side of a thumbnail [pixels]."""
SAMPLED_CHIPS = 8
"""Number of chips of a scene whose pixels determine its stretch."""
SAMPLED_ROWS = 64
"""Number of rows used from each of them."""
NODATA = 0
"""Value of pixels without data [DN], which the stretch ignores."""
LEAST_SPAN_DN = 800
"""Minimum distance between black and white, because a uniform scene would be shown as noise."""
GAMMA = 1.8
"""Gamma of the display, value ** (1 / GAMMA), because land is dark compared with clouds."""
LABEL, UNKNOWN_LABEL, PREDICTION = 1, 2, 4
"""Bits of `Pictures.masks`."""


class Pictures:
    """Pictures of a store's chips.

    Attributes:
        false_colour: Whether the bands allow a false-colour picture.
    """

    def __init__(self, store: ChipStore, predictions: Predictions | None) -> None:
        self.store, self.predictions = store, predictions
        self._bands = {"true": true_bands(store.bands()), "false": false_bands(store.bands())}
        self.false_colour = self._bands["false"] is not None
        self._computing = threading.Lock()
        self._tables = lru_cache(maxsize=512)(self._compute_tables)
        self._scenes = {str(name): list(chips) for name, chips in store.index.groupby("scene")["chip_id"]}

    def colours(self, chip_id: str, name: str, small: bool = False) -> bytes:
        """Render a chip as BMP, or as JPEG if small.

        Lossless compression of 512 x 512 pixels takes 15 ms (PNG) to 30 ms (WebP), which is not worthwhile on loopback.

        Args:
            chip_id: Id of the chip.
            name: `true` or `false`.
            small: Whether to return a thumbnail of at most `SMALL` pixels a side.

        Raises:
            KeyError: There is no such chip or picture.
        """
        bands = self._bands[name]
        if bands is None:
            raise KeyError(name)
        scene = self.store.index.at[chip_id, "scene"]
        with self._computing:  # requests for a new scene arrive together: only one of them computes
            table = self._tables(str(scene), name)
        dn = self.store.chips([chip_id])[0]
        image = Image.fromarray(np.stack([table[dn[band]] for band in bands], axis=-1))
        buffer = io.BytesIO()
        if small:
            image.reduce(factor(dn.shape[-1])).save(buffer, "jpeg", quality=88, subsampling=0)
        else:
            image.save(buffer, "bmp")
        return buffer.getvalue()

    def masks(self, chip_id: str, small: bool = False) -> bytes:
        """Encode label and prediction as one byte per pixel: the sum of `LABEL`, `UNKNOWN_LABEL`, `PREDICTION`."""
        label = self.store.labels([chip_id])[0]
        codes = (label == 1) * np.uint8(LABEL) + (label == IGNORE_INDEX) * np.uint8(UNKNOWN_LABEL)
        predicted = self.predictions.mask(chip_id) if self.predictions else None
        if predicted is not None:
            codes += predicted * np.uint8(PREDICTION)
        step = factor(len(codes)) if small else 1
        return bytes(codes[step // 2 :: step, step // 2 :: step].tobytes())

    def agreement(self, chip_id: str) -> dict[str, float] | None:
        """Return predicted cloud [share] and its IoU with the label (1 if both are empty); None without prediction."""
        predicted = self.predictions.mask(chip_id) if self.predictions else None
        if predicted is None:
            return None
        label = self.store.labels([chip_id])[0]
        overlap = iou(predicted & (label != IGNORE_INDEX), label == 1)
        return {"predicted_share": round(float(predicted.mean()), 4), "iou": round(float(overlap), 4)}

    def _compute_tables(self, scene: str, name: str) -> NDArray[np.uint8]:
        """Compute the displayed value of each digital number: 65,536 uint8, 32 MB for all cached tables.

        The bands of a picture share black and white, so that clouds are white and colours are preserved. These are the
        2nd and 98th percentile of the scene, from a bounded sample of its chips.
        """
        chips = self._scenes[scene]
        chosen = [chips[i] for i in np.linspace(0, len(chips) - 1, min(len(chips), SAMPLED_CHIPS)).round().astype(int)]
        bands = self._bands[name]
        assert bands is not None  # `colours` has already refused it
        rows = slice(None, None, max(1, self.store.chips(chosen[:1]).shape[-1] // SAMPLED_ROWS))
        sample = np.stack([self.store.chips([chip])[0][sorted(set(bands)), rows] for chip in chosen])
        valid = sample[sample != NODATA]
        low, high = np.percentile(valid, [2, 98]) if valid.size else (0.0, 1.0)
        high = max(high, low + LEAST_SPAN_DN)
        return displayed((np.arange(65536) - low) / (high - low), GAMMA)


def factor(side: int) -> int:
    """Return how many pixels are merged into one in a thumbnail."""
    return -(-side // SMALL)
