"""`cloudcover compare`: differences between models, with their uncertainty."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("models", nargs=-1)
@click.option(
    "--counts",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    default=(Path("reports/tables/chips.csv"),),
    show_default=True,
    help="Table of counts per chip from an evaluation. Repeat the option for each run of the workflow with another "
    "training.seed.",
)
@click.option("--tta", default="vflip", show_default=True, help="TTA policy of models given without one.")
@click.option("--figure", type=click.Choice(["jaccard", "location-mean"]), default="jaccard", show_default=True)
@click.option(
    "--resamples", type=click.IntRange(100), default=1000, show_default=True, help="Bootstrap resamples of locations."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed for the bootstrap.")
def compare(models: tuple[str, ...], files: tuple[Path, ...], tta: str, figure: str, resamples: int, seed: int) -> None:
    """Compare MODELS in pairs on the chips of an evaluation.

    A model is a run (baseline, round2, final, …) or RUN:POLICY. By default all runs are compared. The 95 % interval of
    a difference resamples the same locations for both models. A star marks an interval that excludes 0. Counts from one
    training compare two models, and repeating either training may reverse the result. Counts from several trainings on
    the same chips compare their recipes.

    \b
    Examples:
      cloudcover compare
      cloudcover compare baseline final
      cloudcover compare ensemble:none ensemble:d4 --figure location-mean
      cloudcover compare baseline final --counts a/reports/tables/chips.csv --counts b/reports/tables/chips.csv
    """  # noqa: D301
    import pandas as pd

    from cloudcover.data import tables
    from cloudcover.evaluate.compare import STATISTICS, choose_models, pairs

    if len(models) == 1:
        raise click.UsageError("name at least two models, or none for all runs")
    counts = pd.concat(tables.COUNTS.read(file).assign(set=0, training=number) for number, file in enumerate(files))
    chosen = choose_models(counts, models, tta)
    table = pairs(chosen, resamples, seed, STATISTICS[figure])
    what = (
        f"means of {len(files)} trainings" if len(files) > 1 else "of one training: this compares models, not recipes"
    )
    click.echo(f"{figure.replace('-', ' ')} on held-out scenes, differences with 95 % intervals, {what}\n")
    width = max(len(f"{model} - {other}") for model, other in zip(table["model"], table["other"], strict=True))
    for row in table.itertuples():
        pair = f"{row.model} - {row.other}".ljust(width)
        bounds = f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"
        click.echo(f"{pair}  {row.figure:.4f} - {row.other_figure:.4f} = {bounds}{' *' if row[-1] else ''}")
