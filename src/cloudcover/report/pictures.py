"""Chips as pictures: true and false colour, masks, outlines and errors, as data URIs for a self-contained page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from cloudcover.data.chips import IGNORE_INDEX
from cloudcover.data.colours import (
    CLEAR_COLOUR,
    CLOUD_COLOUR,
    GAMMA,
    STRETCH,
    UNKNOWN_COLOUR,
    Picture,
    displayed,
    false_bands,
    true_bands,
)
from cloudcover.data.values import DN_PER_REFLECTANCE

SIDE = 192
"""Longest side of a picture [pixels]."""

FALSE_COLOUR, MISSED_COLOUR = (245, 158, 11), (219, 39, 119)
"""Colours of false and missed cloud, distinguishable with colour blindness."""
LABEL_COLOUR = (250, 204, 21)


def composite(dn: NDArray[np.uint16], bands: Sequence[int]) -> Picture:
    """Compose three bands as red, green and blue, with a fixed stretch, to at most `SIDE` pixels a side.

    Args:
        dn: B x H x W uint16 [DN].
        bands: Positions of red, green and blue in `dn`.
    """
    reflectance = dn[list(bands)].transpose(1, 2, 0) / DN_PER_REFLECTANCE
    return _fit(displayed(reflectance / STRETCH, GAMMA), Image.Resampling.BOX)


def true_colour(dn: NDArray[np.uint16], names: Sequence[str]) -> Picture:
    """Render a chip (B x H x W [DN]) in the colours of `true_bands`."""
    return composite(dn, true_bands(names))


def false_colour(dn: NDArray[np.uint16], names: Sequence[str]) -> Picture | None:
    """Render a chip (B x H x W [DN]) in the colours of `false_bands`; None without these bands."""
    bands = false_bands(names)
    return None if bands is None else composite(dn, bands)


def mask_picture(mask: NDArray[np.uint8]) -> Picture:
    """Render a mask of {0, 1, 255} (H x W) in flat colours."""
    return _flat(mask, {0: CLEAR_COLOUR, 1: CLOUD_COLOUR, IGNORE_INDEX: UNKNOWN_COLOUR})


def errors_picture(predicted: NDArray[np.bool_], label: NDArray[np.uint8]) -> Picture:
    """Render where a prediction (H x W) and a label of {0, 1, 255} agree and differ, in flat colours."""
    codes = label.copy()
    codes[predicted & (label == 0)] = 2
    codes[~predicted & (label == 1)] = 3
    return _flat(
        codes, {0: CLEAR_COLOUR, 1: CLOUD_COLOUR, 2: FALSE_COLOUR, 3: MISSED_COLOUR, IGNORE_INDEX: UNKNOWN_COLOUR}
    )


def outlined(picture: Picture, mask: NDArray[np.uint8 | np.bool_], colour: tuple[int, int, int]) -> Picture:
    """Draw the inner outline of a mask's cloud (H x W of the chip, any size) on a picture."""
    cloud = _fit((mask == 1).astype(np.uint8), Image.Resampling.NEAREST) == 1
    edge = cloud & ~binary_erosion(cloud, border_value=1)
    result = picture.copy()
    result[edge] = colour
    return result


def photo_uri(picture: Picture) -> str:
    """Encode a picture as a JPEG data URI: some kilobytes per chip, a tenth of a PNG."""
    return _uri(Image.fromarray(picture), "jpeg", quality=82, subsampling=0)


def flat_uri(picture: Picture) -> str:
    """Encode a picture as a PNG data URI with a palette: lossless, and small for few colours."""
    return _uri(Image.fromarray(picture).quantize(8, dither=Image.Dither.NONE), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def _flat(codes: NDArray[np.uint8], colours: dict[int, tuple[int, int, int]]) -> Picture:
    table = np.zeros((256, 3), np.uint8)
    for code, colour in colours.items():
        table[code] = colour
    return table[_fit(codes, Image.Resampling.NEAREST)]


def _fit(pixels: NDArray[np.uint8], how: Image.Resampling) -> NDArray[np.uint8]:
    """Shrink to at most `SIDE` pixels a side; smaller pictures are unchanged."""
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale == 1.0:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, how))
