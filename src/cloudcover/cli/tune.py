"""`cloudcover tune`: search for the strength of augmentation."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Total number of finished trials, those of earlier runs included.",
)
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps per trial.  [default: half of training.steps]")
@click.option(
    "--fold",
    "held_out",
    type=int,
    multiple=True,
    default=(0,),
    show_default=True,
    help="Fold to validate on; can be repeated.",
)
@click.option(
    "--params",
    "params_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="params.yaml",
    show_default=True,
    help="Parameters; everything but the augmentation is taken from them.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="data",
    show_default=True,
    help="The workflow's data folder, with store, labels/manifest.csv and folds.csv.",
)
@click.option(
    "--study",
    type=click.Path(dir_okay=False, path_type=Path),
    default="work/tune/augmentation.journal",
    show_default=True,
    help="Optuna's file of the trials; after an interruption, the same command resumes.",
)
def tune(trials: int, steps: int | None, held_out: tuple[int, ...], params_file: Path, data: Path, study: Path) -> None:
    """Search for the strength of augmentation by short trainings.

    Run the workflow up to data/labels/manifest.csv first. Each trial trains on clean labels and is evaluated on the
    held-out fold. The first trial uses the augmentation in the parameters. The figure of the best trial is optimistic,
    because the trial was chosen by it. Put its values into params.yaml, rerun the workflow, and decide with
    `cloudcover compare`.

    \b
    Examples:
      snakemake --cores 2 data/labels/manifest.csv
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
