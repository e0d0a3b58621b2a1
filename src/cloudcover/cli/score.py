"""`cloudcover score`: how well masks on disk agree with labels on disk."""

from __future__ import annotations

import json
from pathlib import Path

import click


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
