"""`cloudcover predict`: masks of chips by a trained model or bundle."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from cloudcover.config.sections import Tta


@click.command()
@click.argument("chips", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path),
    help="A bundle, or a single model folder, trained or exported.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the masks.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 on a GPU, fp32 on a CPU; an exported model has its own.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=32, show_default=True, help="Chips per forward pass of the network."
)
@click.option(
    "--tta", type=click.Choice(get_args(Tta)), help="Views to average.  [default: what the bundle was measured with]"
)
@click.option(
    "--offset",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="What was added to the DN of files without an offset tag, such as 1000; subtracted on reading.",
)
def predict(
    chips: tuple[Path, ...],
    model: Path,
    out: Path,
    device: str,
    precision: str,
    batch: int,
    tta: Tta | None,
    offset: int,
) -> None:
    """Write a cloud mask for each of CHIPS.

    A chip is a folder with one GeoTIFF per band (B02.tif, B03.tif, …) of any height and width. CHIPS are such folders,
    or folders that hold them at any depth. The files' own scale, offset, nodata value and mask are respected. The mask
    of the chip `abc` is `abc.tif`, one band of bytes: 0 clear, 1 cloud, 255 no data; it has the chip's position. A
    folder made by `cloudcover export` is several times faster on CPUs.

    \b
    Examples:
      cloudcover predict data/raw/test_features --model models/bundle --out masks
      cloudcover predict one/chip another/chip --model models/round1/fold0 --out masks --tta d4
    """  # noqa: D301
    import logging

    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.folder import find_chips, predict_chips

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("cloudcover").setLevel(logging.INFO)
    predictor = load_bundle(model, device, precision, batch)
    if tta is not None:
        predictor.policy = tta
    written = predict_chips(predictor, find_chips(chips, predictor.card.bands), out, offset)
    click.echo(f"{len(written)} masks in {out}")
