"""`cloudcover predict`: mask the clouds in images with a trained model or bundle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import click

from cloudcover.config.sections import Tta


class FiniteRange(click.FloatRange):
    """A number within bounds, neither infinite nor NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number, and refuse what is not finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class ResolutionType(click.ParamType[float | str]):
    """`auto`, or a positive number of metres."""

    name = "auto|METRES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the number, or `auto`."""
        if value == "auto":
            return value
        return FiniteRange(0, min_open=True).convert(value, param, ctx)


class BandsType(click.ParamType[tuple[int, ...]]):
    """Comma-separated band numbers, from 1."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse the numbers into a tuple."""
        texts = str(value).split(",")
        if not all(text.strip().isdecimal() and int(text) for text in texts):
            self.fail(f"{value!r} is not a list of band numbers such as 1,2,3,4", param, ctx)
        return tuple(map(int, texts))


METRES = FiniteRange(0)
KINDS = ["safe", "landsat", "hls", "chip", "bands", "raster", "stac"]
"""The readers of `rasters.find`, which is imported only when the command runs."""


@click.command()
@click.argument("images", nargs=-1, required=True, type=str)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Bundle or model folder, trained or exported.  [default: the packaged model]",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write the masks to."
)
@click.option("--as", "kind", type=click.Choice(KINDS), help="Format of IMAGES.  [default: detected]")
@click.option(
    "--bands",
    type=BandsType(),
    help="Numbers of a raster's bands, in the order of the model's bands.  [default: by their descriptions]",
)
@click.option("--probabilities", is_flag=True, help="Also write probabilities, to OUT/probabilities.")
@click.option("--preview", is_flag=True, help="Also write small pictures with cloud outlines, to OUT/previews.")
@click.option(
    "--summary",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Write a table with the shares of cloud, clear and unknown pixels per image.",
)
@click.option(
    "--polygons",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.geojson",
    help="Areas to list in separate rows of the summary.",
)
@click.option(
    "--threshold",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Probability above which a pixel is cloud.  [default: the model's own]",
)
@click.option("--min-area", type=METRES, default=0, metavar="METRES²", help="Remove clouds smaller than this.")
@click.option("--buffer", type=METRES, default=0, metavar="METRES", help="Add a margin of this width around clouds.")
@click.option(
    "--resolution",
    type=ResolutionType(),
    help="Pixel size [m] to resample images to before prediction; masks are resampled back. auto: the model's own, "
    "10 m.  [default: no resampling]",
)
@click.option("--skip-existing", is_flag=True, help="Skip images whose files in OUT have the same model and options.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 on a GPU, fp32 on a CPU; an exported model has a fixed precision.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=32, show_default=True, help="Chips per forward pass of the network."
)
@click.option(
    "--tta",
    type=click.Choice(get_args(Tta)),
    help="Test-time augmentation: views to average.  [default: the bundle's own]",
)
@click.option(
    "--offset",
    type=click.IntRange(0, 65535),
    help="Offset, such as 1000, to subtract from the DN of files without an offset tag.  [default: none]",
)
@click.option(
    "--scale",
    type=FiniteRange(0, min_open=True),
    help="Reflectance of a stored value of 1 in files without a scale tag, such as 0.0001 for DN stored as "
    "floating-point numbers.  [default: 1 for floating-point numbers, 0.0001 for integers]",
)
def predict(
    images: tuple[str, ...],
    model: Path | None,
    out: Path,
    kind: Any,
    bands: tuple[int, ...] | None,
    probabilities: bool,
    preview: bool,
    summary: Path | None,
    polygons: Path | None,
    threshold: float | None,
    min_area: float,
    buffer: float,
    resolution: Any,
    skip_existing: bool,
    device: str,
    precision: str,
    batch: int,
    tta: Tta | None,
    offset: int | None,
    scale: float | None,
) -> None:
    """Write a cloud mask for each of IMAGES, of any size.

    IMAGES are files, URLs, or folders that contain images at any depth: chips (a folder with B02.tif, B03.tif, …),
    rasters with the band in their names (x_B02.jp2), .SAFE folders or their zips, Landsat and HLS folders, rasters with
    several bands, and STAC items. The mask of `abc` is `OUT/abc.tif`, a single uint8 band on the grid of the image: 0
    clear, 1 cloud, 255 no data. On CPUs, a model exported by `cloudcover export` is several times faster.

    \b
    Examples:
      cloudcover predict S2A_MSIL2A_20200101T101010.SAFE --out masks --preview
      cloudcover predict data/raw/test_features --model models/bundle --out masks
      cloudcover predict mosaic.tif --bands 1,2,3,4 --out masks --buffer 50 --summary masks.csv
    """  # noqa: D301
    import logging

    from cloudcover.models.packaged import packaged_bundle
    from cloudcover.predict.bundle import load_bundle
    from cloudcover.predict.images import predict_images
    from cloudcover.predict.outputs import Outputs
    from cloudcover.predict.polygons import read_polygons
    from cloudcover.predict.summary import Summary
    from cloudcover.rasters.find import find_images
    from cloudcover.runtime.files import expanded

    out = expanded(out)
    if polygons and not summary:
        raise click.UsageError("--polygons needs --summary, the table to write their shares to")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("cloudcover").setLevel(logging.INFO)
    table = Summary(expanded(summary), read_polygons(polygons) if polygons else None) if summary else None
    predictor = load_bundle(expanded(model) if model else packaged_bundle(), device, precision, batch, threshold)
    if tta is not None:
        predictor.policy = tta
    card = predictor.card
    if bands and len(bands) != len(card.bands):
        raise click.UsageError(f"--bands names {len(bands)} bands, but the model needs {', '.join(card.bands)}")
    found = find_images(images, card.bands, kind=kind, numbers=bands, offset=offset, scale=scale, nodata=card.nodata)
    outputs = Outputs(out, probabilities, preview, buffer, min_area)
    written = predict_images(
        predictor, found, outputs, resolution=resolution, skip_existing=skip_existing, summary=table
    )
    click.echo(f"{len(written)} mask{'s' if len(written) != 1 else ''} in {out}")
