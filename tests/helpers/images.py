"""What the readers report about an image."""

from __future__ import annotations

import numpy as np

from cloudcover.rasters.find import find_images
from helpers.layouts import BANDS


def read(path, bands=BANDS, **options):
    """Read all pixels of the only image in a path."""
    (found,) = find_images([path], bands, **options)
    with found.open() as image:
        return image.read(slice(0, image.grid.height), slice(0, image.grid.width))


def opened(path, bands=BANDS, **options):
    """Return an image's name, reader, log line, and whether its offset is doubtful."""
    (found,) = find_images([path], bands, **options)
    with found.open() as image:
        return found.name, found.kind, image.says, image.doubtful


def shifted(pixels, offset):
    """Shift DN by definition: nodata is unchanged, everything else is at least 1."""
    moved = np.maximum(pixels.astype(np.int64) + offset, 1)
    return np.where(pixels == 0, 0, moved).astype(np.uint16)
