"""How well masks on disk agree with labels on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cloudcover.data.chips import IGNORE_INDEX, read_mask
from cloudcover.evaluate.metrics import by_group
from cloudcover.masks.overlap import COLUMNS, confusion
from cloudcover.runtime.text import listed


def compare(predictions: Path, labels: Path) -> dict[str, float]:
    """Figures (0-1) of the masks in one folder against the labels in another, and the number of chips.

    Raises:
        FileNotFoundError: there are no labels, or a label has no prediction.
        ChipError: a file is not a single-band raster of bytes, or holds other values.
        ValueError: a prediction and its label have different shapes, or a folder seems to hold 0/255 masks.
    """
    names = sorted(path.name for path in labels.glob("*.tif"))
    if not names:
        raise FileNotFoundError(f"{labels} holds no labels: expected files CHIP.tif")
    missing = [name for name in names if not (predictions / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} labels have no prediction in {predictions}: {listed(missing)}"
        )
    rows, seen = [], {folder: set[int]() for folder in (predictions, labels)}
    for name in names:
        predicted, given = (_read(folder / name, seen[folder]) for folder in (predictions, labels))
        if predicted.shape != given.shape:
            raise ValueError(f"{predictions / name} has the shape {predicted.shape}, but {labels / name} {given.shape}")
        rows.append([name, *confusion((predicted == 1)[None], given[None])[0]])
    for folder, values in seen.items():
        if IGNORE_INDEX in values and 1 not in values:
            raise ValueError(f"no mask in {folder} holds a 1, but some hold 255: write cloud as 1, 255 means unknown")
    counts = pd.DataFrame(rows, columns=["chip_id", *COLUMNS])
    whole = by_group(counts.assign(all="all"), "all").iloc[0]
    return {
        "jaccard": float(whole["jaccard"]),
        "jaccard_chip_mean": float(by_group(counts, "chip_id")["jaccard"].mean()),
        "precision": float(whole["precision"]),
        "recall": float(whole["recall"]),
        "chips": float(whole["chips"]),
    }


def _read(path: Path, seen: set[int]) -> NDArray[np.uint8]:
    """A mask of {0, 1, 255}, H x W; adds its values to `seen`."""
    mask = read_mask(path, "mask")[0]
    seen.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    return mask
