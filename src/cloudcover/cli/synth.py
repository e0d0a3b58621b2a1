"""`cloudcover synth`: generate a synthetic data set with known true masks."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--chips", type=int, help="Number of chips.")
@click.option("--scenes", type=int, help="Number of scenes, spread over the locations.")
@click.option("--locations", type=int, help="Number of locations.")
@click.option("--chip-size", type=int, help="Height and width of a chip [pixels].")
@click.option("--label-errors", type=float, help="Share of labels that are wrong [0-1].")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed; equal seeds give equal data sets.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
def synth(
    out: Path,
    chips: int | None,
    scenes: int | None,
    locations: int | None,
    chip_size: int | None,
    label_errors: float | None,
    seed: int,
    workers: int,
) -> None:
    """Generate a synthetic data set in the folder OUT.

    OUT must be empty or hold an earlier set, which is replaced. The set has the challenge's layout. The true masks and
    the kinds of wrong labels go to OUT/truth. The options default to the values in config/README.md.

    \b
    Example:
      cloudcover synth my-chips --chips 100 --scenes 10 --locations 5 --seed 1
    """  # noqa: D301
    from cloudcover.config.params import validate
    from cloudcover.data.layout import write_file_table
    from cloudcover.synthetic.generate import generate

    given = {"chips": chips, "scenes": scenes, "locations": locations, "label_errors": label_errors}
    values = {
        "seed": seed,
        "synthetic": {k: v for k, v in given.items() if v is not None},
        "data": {} if chip_size is None else {"chip_size": chip_size},
    }
    params = validate(values, "these options")
    made = generate(params.synthetic, params.data, params.seed, out, out / "truth", workers)
    files = write_file_table(out, "synthetic", paths=made)
    click.echo(f"{params.synthetic.chips} chips in {out}, {len(files)} files; true masks in {out / 'truth'}")
