"""`cloudcover summary`: print the figures of the last run in the terminal."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--reports",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder with metrics.json, truth.json and index.html.",
)
def summary(reports: Path) -> None:
    """Print the figures of the last run and the path of its report.

    \b
    Example:
      cloudcover summary --reports reports
    """  # noqa: D301
    from cloudcover.report.table import final_table

    click.echo(final_table(reports / "metrics.json", reports / "truth.json"))
    click.echo(f"\nreport: {reports / 'index.html'}")
