"""`cloudcover export`: convert trained models to OpenVINO graphs for fast prediction on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloudcover.predict.openvino.card import Precision


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write the exported model to.",
)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "int8"]), default="bf16", show_default=True)
@click.option(
    "--calibrate", type=click.Path(path_type=Path), help="Store of packed chips, such as data/store; required for int8."
)
@click.option("--chips", type=click.IntRange(1), default=32, show_default=True, help="Number of chips to calibrate on.")
@click.option("--seed", default=0, show_default=True, help="Random seed for choosing the chips.")
def export(model: Path, out: Path, precision: Precision, calibrate: Path | None, chips: int, seed: int) -> None:
    """Export MODEL, a bundle or a model folder, for fast prediction on CPUs.

    `cloudcover predict --model OUT` then runs it with OpenVINO. int8 is the fastest precision, needs the chips of a
    store for calibration, and changes about one pixel in a hundred. If a store is given, the export is compared with
    MODEL on other chips from it. Needs the extra cloudcover[openvino].

    \b
    Examples:
      cloudcover export models/bundle --out models/fast
      cloudcover export models/bundle --out models/fast --precision int8 --calibrate data/store
    """  # noqa: D301
    from cloudcover.data.store import ChipStore
    from cloudcover.predict.openvino.export import export as export_model

    made = export_model(model, out, precision, ChipStore(calibrate) if calibrate else None, seed, chips)
    click.echo(f"{len(made)} models in {out}, {precision}")
    for one in made:
        if one.disagreement_share is not None:
            click.echo(f"pixels that differ from fp32 on {len(one.checked_chips)} chips: {one.disagreement_share:.2%}")
