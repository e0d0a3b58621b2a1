"""`cloudcover manifest`: import and compare reviews of labels made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def manifest() -> None:
    """Import lists of rejected labels, and compare them.

    A list is a `.txt` file (one chip per line), a `.csv` file (with a column chip_id; verdicts or a manifest of this
    project; or `FILE.csv:COLUMN` with 0 and 1), or a `.yml` file (`overall: [chips]`).

    \b
    Examples:
      cloudcover manifest import bad_chips.yml --reviewer ana
      cloudcover manifest compare bad_chips.yml data/labels/manifest.csv
    """  # noqa: D301


@manifest.command("import")
@click.argument("lists", nargs=-1, required=True)
@click.option("--reviewer", help="Name of the reviewer.  [default: the name of each file]")
@click.option(
    "--verdicts",
    type=click.Path(dir_okay=False, path_type=Path),
    default="config/verdicts.csv",
    show_default=True,
    help="Table to add the verdicts to.",
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default="data/store",
    show_default=True,
    help="Packed chips to check the ids against, if they exist.",
)
@click.option("--replace", is_flag=True, help="Also replace verdicts that are already in the table.")
def import_lists(lists: tuple[str, ...], reviewer: str | None, verdicts: Path, store: Path, replace: bool) -> None:
    """Add the verdicts of LISTS to the table of human verdicts.

    Chips that already have a verdict, from the table or from an earlier list, keep it. File names stand for their
    chips: 0012.tif is the chip 0012. A list with ids altered by a spreadsheet (12 for 0012) is rejected.

    \b
    Example:
      cloudcover manifest import bad_chips.yml --reviewer ana
    """  # noqa: D301
    import pandas as pd

    from cloudcover.data import tables
    from cloudcover.labels.importers import read_verdicts
    from cloudcover.labels.known import refuse_changed
    from cloudcover.review.verdicts import only_writer

    new = pd.concat([read_verdicts(name, reviewer) for name in lists]).drop_duplicates("chip_id")
    if (store / "index.parquet").exists():
        refuse_changed(new["chip_id"], tables.INDEX.read(store / "index.parquet")["chip_id"], "the lists")
    with only_writer(verdicts):
        old = tables.VERDICTS.read(verdicts) if verdicts.exists() else tables.VERDICTS.empty()
        both = pd.concat([new, old] if replace else [old, new])
        merged = both.drop_duplicates("chip_id").sort_values("chip_id", ignore_index=True)
        tables.VERDICTS.write(merged, verdicts.resolve())
    known = int(new["chip_id"].isin(old["chip_id"]).sum())
    click.echo(
        f"{len(new) - known} verdicts added, {known} {'replaced' if replace else 'kept as they were'}: {verdicts}"
    )


@manifest.command()
@click.argument("lists", nargs=-1, required=True)
@click.option(
    "--chips",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="data/labels/manifest.csv",
    show_default=True,
    help="CSV with a column chip_id that lists all judged chips.",
)
def compare(lists: tuple[str, ...], chips: Path) -> None:
    """Print how far LISTS of rejected labels agree.

    For each pair, prints how many labels each list and both lists reject, the Jaccard index of the two sets, and
    Cohen's kappa (agreement beyond chance: 1 is perfect, 0 is chance). Then prints the number of labels by number of
    votes.

    \b
    Examples:
      cloudcover manifest compare ana.txt bo.csv data/labels/manifest.csv
      cloudcover manifest compare votes.csv:ana votes.csv:bo --chips votes.csv
    """  # noqa: D301
    from cloudcover.labels.importers import agreement, read_chips, read_verdicts, votes

    if len(lists) < 2:
        raise click.UsageError("name at least two lists")
    judged = read_chips(chips)
    rejected = {}
    for name in lists:
        found = read_verdicts(name)
        rejected[name if name in rejected else Path(name).name] = found.loc[found["verdict"] == "bad", "chip_id"]
    click.echo(agreement(rejected, judged).to_string(index=False, float_format="{:.3f}".format))
    counts = votes(rejected, judged)["votes"].value_counts().reindex(range(len(rejected) + 1), fill_value=0)
    click.echo(f"\nvotes to reject, of {len(judged)} labels")
    click.echo(counts.rename_axis("votes").reset_index(name="labels").to_string(index=False))
