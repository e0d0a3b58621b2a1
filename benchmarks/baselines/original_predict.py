"""The original's way to write masks, as it describes it: float batches from workers, fp32, view by view, PIL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from baselines.original_input import read_image
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class SeedScenes(Dataset[tuple[str, Tensor]]):
    """Chip folders: name and 3 x H x W float32."""

    def __init__(self, chips: Sequence[Path]) -> None:
        self.chips = list(chips)

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, item: int) -> tuple[str, Tensor]:
        image = np.ascontiguousarray(read_image(self.chips[item]).transpose(2, 0, 1))
        return self.chips[item].name, torch.from_numpy(image)


def predict(network: nn.Module, chips: Sequence[Path], out: Path, batch: int, workers: int, device: str) -> None:
    """Write a mask per chip: the mean of the predictions of the chip and of its up-down flip above 0.5."""
    out.mkdir(parents=True, exist_ok=True)
    network.eval().to(device)
    with torch.no_grad():
        for names, images in DataLoader(SeedScenes(chips), batch, num_workers=workers):
            inputs = images.to(device)
            plain = torch.sigmoid(network(inputs))
            flipped = torch.sigmoid(network(torch.flip(inputs, dims=[2])))
            mean = (plain + torch.flip(flipped, dims=[2])) / 2
            masks = (mean[:, 0] > 0.5).cpu().numpy().astype(np.uint8)
            for name, mask in zip(names, masks, strict=True):
                Image.fromarray(mask).save(out / f"{name}.tif")
