"""`cloudcover score`: compare masks with labels, both in files."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("predictions", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("labels", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(predictions: Path, labels: Path, as_json: bool) -> None:
    """Score masks against labels with the challenge's metric, the global Jaccard.

    For every label LABELS/CHIP.tif, the mask PREDICTIONS/CHIP.tif is compared with it. The global Jaccard is the sum of
    the chips' intersections over the sum of their unions. Masks contain 0 (clear) and 1 (cloud). Pixels with 255 in a
    label are unknown and ignored. Pixels with 255 in a prediction, where the chip has no data, count as clear.

    \b
    Example:
      cloudcover predict data/raw/train_features --out masks
      cloudcover score masks data/raw/train_labels
    """  # noqa: D301
    from cloudcover.evaluate.score import compare

    figures = compare(predictions, labels)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    click.echo(f"global Jaccard          {figures['jaccard']:.4f}  sum of intersections / sum of unions")
    click.echo(f"mean Jaccard of chips   {figures['jaccard_chip_mean']:.4f}")
    click.echo(f"precision               {figures['precision']:.4f}")
    click.echo(f"recall                  {figures['recall']:.4f}")
    click.echo(f"chips                   {figures['chips']:6.0f}")
