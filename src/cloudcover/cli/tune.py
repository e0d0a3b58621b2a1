"""`cloudcover tune`: a search for the strength of augmentation."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Finished trials to reach.")
@click.option("--steps", type=click.IntRange(1), help="Of a trial.  [default: half of training.steps]")
@click.option("--fold", "held_out", type=int, multiple=True, default=(0,), show_default=True, help="To validate on.")
@click.option(
    "--params",
    "params_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="params.yaml",
    show_default=True,
    help="Everything but the augmentation stays as it is there.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="data",
    show_default=True,
    help="Folder with store, labels/manifest.csv and folds.csv of the workflow.",
)
@click.option(
    "--study",
    type=click.Path(dir_okay=False, path_type=Path),
    default="work/tune/augmentation.journal",
    show_default=True,
    help="Optuna's file of the trials; the same command goes on after a stop.",
)
def tune(trials: int, steps: int | None, held_out: tuple[int, ...], params_file: Path, data: Path, study: Path) -> None:
    """Search for the strength of augmentation by short trainings.

    Run the workflow up to data/folds.csv first. Each trial trains on clean labels and is judged on the held-out fold.
    The first trial is the augmentation of the parameters. The best trial is better than it looks only if other folds
    agree: put its values into params.yaml and let the chain and `cloudcover compare` decide.

    \b
    Examples:
      snakemake --cores 2 data/folds.csv
      cloudcover tune --trials 30 --steps 100
    """  # noqa: D301
    import logging
    from dataclasses import replace

    import yaml

    from cloudcover.config.params import load
    from cloudcover.config.training import TrainingConfig
    from cloudcover.data import tables
    from cloudcover.data.store import ChipStore
    from cloudcover.train.tune import FIGURE, finished, suggest
    from cloudcover.train.tune import tune as search

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("cloudcover.train.tune").setLevel(logging.INFO)
    params = load(params_file)
    length = steps or max(1, params.training.steps // 2)
    config = TrainingConfig.of(params)
    config = replace(config, training=params.training.model_copy(update={"steps": length}))
    found = search(
        config,
        ChipStore(data / "store"),
        tables.MANIFEST.read(data / "labels" / "manifest.csv"),
        tables.FOLDS.read(data / "folds.csv"),
        held_out,
        trials,
        study,
        study.parent,
    )
    done = finished(found)
    click.echo(f"{len(done)} trials of {length} steps in {study}")
    click.echo(f"params.yaml  {done[0].value:.4f}  validation figure ({params.training.monitor or FIGURE}, 0-1)")
    click.echo(f"best         {found.best_value:.4f}  trial {found.best_trial.number}\n")
    best = suggest(found.best_trial, params.augmentation)
    click.echo(yaml.safe_dump({"augmentation": best.model_dump()}, sort_keys=False), nl=False)
