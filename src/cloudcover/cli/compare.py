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
    help="Counts per chip of an evaluation; once for each repetition of the chain with another training.seed.",
)
@click.option("--tta", default="vflip", show_default=True, help="Policy where a model has none.")
@click.option("--figure", type=click.Choice(["jaccard", "location-mean"]), default="jaccard", show_default=True)
@click.option("--resamples", type=click.IntRange(100), default=1000, show_default=True, help="Of locations.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the resamples.")
def compare(models: tuple[str, ...], files: tuple[Path, ...], tta: str, figure: str, resamples: int, seed: int) -> None:
    """Compare MODELS, two by two, on the chips of an evaluation.

    A model is a run (baseline, round2, final, …) or RUN:POLICY; without any, all runs are compared. The 95 % interval
    of a difference resamples locations, the same for both models; a star says that it leaves out 0. Counts of one
    training compare two models, and another training of either may turn that round. Counts of several trainings of
    the same chips compare their recipes.

    \b
    Examples:
      cloudcover compare
      cloudcover compare baseline final
      cloudcover compare final:none final:d4 --figure location-mean
      cloudcover compare baseline final --counts a/reports/tables/chips.csv --counts b/reports/tables/chips.csv
    """  # noqa: D301
    import pandas as pd

    from cloudcover.data import tables
    from cloudcover.evaluate.compare import STATISTICS, choose_models, pairs

    if len(models) == 1:
        raise click.UsageError("name two models or more, or none for all runs")
    counts = pd.concat(tables.COUNTS.read(file).assign(set=0, training=number) for number, file in enumerate(files))
    chosen = choose_models(counts, models, tta)
    table = pairs(chosen, resamples, seed, STATISTICS[figure])
    what = f"means of {len(files)} trainings" if len(files) > 1 else "of one training, so of models and not of recipes"
    click.echo(f"{figure.replace('-', ' ')} on held-out scenes, differences with 95 % intervals, {what}\n")
    width = max(len(f"{model} - {other}") for model, other in zip(table["model"], table["other"], strict=True))
    for row in table.itertuples():
        pair = f"{row.model} - {row.other}".ljust(width)
        bounds = f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"
        click.echo(f"{pair}  {row.figure:.4f} - {row.other_figure:.4f} = {bounds}{' *' if row[-1] else ''}")
