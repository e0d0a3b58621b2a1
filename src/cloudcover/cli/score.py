"""`cloudcover score`: how well masks on disk agree with labels on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@click.command()
@click.argument("predictions", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("labels", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(predictions: Path, labels: Path, as_json: bool) -> None:
    """Score masks against labels: the challenge's Jaccard.

    The mask PREDICTIONS/CHIP.tif is compared with the label LABELS/CHIP.tif, for every label. The global Jaccard is the
    sum of the chips' intersections over the sum of their unions. Masks hold 0 (clear) and 1 (cloud). Pixels that are
    255 in a label are unknown and left out; pixels that are 255 in a prediction, where the chip has no data, count as
    clear.

    \b
    Example:
      cloudcover score masks data/raw/train_labels
    """  # noqa: D301
    figures = compare(predictions, labels)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    click.echo(f"global Jaccard          {figures['jaccard']:.4f}  sum of intersections / sum of unions")
    click.echo(f"mean Jaccard of chips   {figures['jaccard_chip_mean']:.4f}")
    click.echo(f"precision               {figures['precision']:.4f}")
    click.echo(f"recall                  {figures['recall']:.4f}")
    click.echo(f"chips                   {figures['chips']:6.0f}")


def compare(predictions: Path, labels: Path) -> dict[str, float]:
    """Figures (0-1) of the masks in one folder against the labels in another, and the number of chips.

    Raises:
        FileNotFoundError: there are no labels, or a label has no prediction.
        ChipError: a file is not a single-band raster of bytes, or holds other values.
        ValueError: a prediction and its label have different shapes, or a folder seems to hold 0/255 masks.
    """
    import pandas as pd

    from cloudcover.data.chips import IGNORE_INDEX
    from cloudcover.evaluate.metrics import by_group
    from cloudcover.masks.overlap import COLUMNS, confusion

    names = sorted(path.name for path in labels.glob("*.tif"))
    if not names:
        raise FileNotFoundError(f"{labels} holds no labels: expected files CHIP.tif")
    missing = [name for name in names if not (predictions / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} labels have no prediction in {predictions}: {', '.join(missing[:5])}"
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
    import numpy as np

    from cloudcover.data.chips import read_mask

    mask = read_mask(path, "mask")[0]
    seen.update(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    return mask
