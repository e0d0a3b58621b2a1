"""Images of any size, in memory and as files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from cloudcover.data.grid import Grid
from cloudcover.rasters.layers import Request
from helpers.layouts import BANDS, blob

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


class Memory:
    """An image in memory."""

    conversion, says, files, doubtful = "", "in memory", (), True

    def __init__(self, dn, transform=NORTH_UP, crs="EPSG:32633", name="scene"):
        self.dn, self.name = dn, name
        self.grid = Grid(*dn.shape[1:], crs=crs, transform=transform)
        self.reads = []

    def read(self, rows, columns):
        assert 0 <= rows.start < rows.stop <= self.grid.height
        assert (columns.start, columns.stop) == (0, self.grid.width)
        self.reads.append(rows)
        return self.dn[:, rows, columns]


class InMemory:
    """As much of `Found` as prediction needs, for an image in memory."""

    kind, place, request = "raster", "", Request(tuple(BANDS))

    def __init__(self, image):
        self.image, self.name = image, image.name

    @classmethod
    def of(cls, dn, **where):
        return cls(Memory(dn, **where))

    def open(self):
        return nullcontext(self.image)


def scene(height, width, seed=0):
    """Dark ground with clouds: 4 x H x W uint16 [DN]."""
    rng = np.random.default_rng(seed)
    side = max(height, width)
    cloud = blob(rng, side, 0.4)[:height, :width]
    dn = rng.normal(900, 60, (4, height, width)) + cloud * rng.normal(4000, 300, (height, width))
    return np.clip(dn, 1, 65535).astype(np.uint16)


def write_raster(path: Path, dn, **more):
    profile = {
        "driver": "GTiff", "count": len(dn), "height": dn.shape[1], "width": dn.shape[2], "dtype": dn.dtype,
        "crs": "EPSG:32633", "transform": Affine(*NORTH_UP),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile | more) as output:
        output.write(dn)


def write_chip(folder: Path, dn, **more):
    for band, pixels in zip(BANDS, dn, strict=True):
        write_raster(folder / f"{band}.tif", pixels[np.newaxis], **more)
