"""Input of the original's network, as it describes it: three bands by rasterio per item, percentiles, workers.

Every access opens the TIFFs again, finds the 2nd and 98th percentile of each band by `np.nanpercentile`, scales in
float32 and flips at random; a `DataLoader` sends float batches from its workers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

BANDS = ("B02", "B03", "B04")


def read(path: Path) -> NDArray[np.generic]:
    """Return the band of a TIFF."""
    with rasterio.open(path) as file:
        return file.read(1)


def scale(band: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a band so that its 2nd percentile is 0 and its 98th is 1, and clip it."""
    low, high = np.nanpercentile(band, (2, 98))
    return np.clip((band - low) / (high - low), 0, 1).astype(np.float32)


def read_image(chip: Path) -> NDArray[np.float32]:
    """Return a chip's folder as H x W x 3 in [0, 1]."""
    return np.stack([scale(read(chip / f"{band}.tif").astype(np.float32)) for band in BANDS], axis=-1)


class SeedChips(Dataset[tuple[Tensor, Tensor]]):
    """Chips of a raw folder: 3 x H x W float32 in [0, 1] and H x W int64.

    Args:
        raw: Folder in the challenge's layout.
    """

    def __init__(self, raw: Path) -> None:
        self.raw = raw
        self.chips = sorted(path.name for path in (raw / "train_features").iterdir())

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        chip = self.chips[item]
        image = read_image(self.raw / "train_features" / chip)
        mask = read(self.raw / "train_labels" / f"{chip}.tif").astype(np.int64)
        for axis in (0, 1):
            if torch.rand(()) < 0.5:
                image, mask = np.flip(image, axis), np.flip(mask, axis)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(mask.copy())


def loader(raw: Path, batch: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return shuffled batches of the chips."""
    return DataLoader(SeedChips(raw), batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
