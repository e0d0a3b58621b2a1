"""`cloudcover submit`: package a model as a submission for the challenge's code runtime."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Archive to write, such as submission.zip.",
)
def submit(model: Path, out: Path) -> None:
    """Write MODEL, a bundle or a model folder, as a submission for the On Cloud N code runtime.

    Its main.py reads data/test_features/CHIP/B02.tif and so on, and writes predictions/CHIP.tif: the same masks as
    `cloudcover predict`, but with 0 (clear) where there is no data. It does not use the network. The runtime needs
    Python 3.11, torch, segmentation-models-pytorch and the other libraries for prediction, but not this package.

    \b
    Example:
      cloudcover submit models/bundle --out submission.zip
    """  # noqa: D301
    from cloudcover.predict.submission import write_submission

    write_submission(model, out)
    click.echo(f"{out}, {out.stat().st_size / 1e6:.1f} MB")
