"""`cloudcover review`: a local web page for judging labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cloudcover.review.app import Review

AUDITS = Path("data/audit")
PREDICTIONS = Path("data/oof")


@click.command()
@click.option(
    "--store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("data/store"),
    show_default=True,
    help="Folder of packed chips.",
)
@click.option(
    "--audit",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Table of suspicions and reasons.  [default: the newest in {AUDITS}, if any]",
)
@click.option(
    "--verdicts",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("config/verdicts.csv"),
    show_default=True,
    help="File to write the verdicts to; keep it under version control.",
)
@click.option(
    "--predictions",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of out-of-fold predictions: of one run, or of several, of which the newest round is shown.  "
    f"[default: {PREDICTIONS}, if there is one]",
)
@click.option("--reviewer", help="Name of the reviewer.  [default: git's user.name, or the login name]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8391,
    show_default=True,
    help="Port on loopback; 0 picks a free one.",
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser; only print the page's address.")
def review(
    store: Path,
    audit: Path | None,
    verdicts: Path,
    predictions: Path | None,
    reviewer: str | None,
    port: int,
    no_browser: bool,
) -> None:
    """Judge labels on a local web page, the most suspicious first.

    Only this computer can open the page. Every verdict is saved at once, so the page can be closed at any time. Press ?
    on the page for its keyboard shortcuts. The rule `manifest` reads the verdicts on the next run.

    \b
    Example:
      cloudcover review --reviewer "Ada Lovelace"
    """  # noqa: D301
    from cloudcover.review.predictions import newest_audit
    from cloudcover.review.server import default_reviewer, serve

    def ready(address: str, page: Review) -> None:
        progress = page.queue.progress(page.verdicts.rows(), page.verdicts.reviewer)
        click.echo(
            f"{address}\n{progress['labels']} labels, {progress['judged']} judged; {page.verdicts.reviewer}'s verdicts "
            f"go to {verdicts} at once. Ctrl+C ends the page."
        )
        if not page.queue.audited:
            click.echo(f"There is no audit in {AUDITS}: labels are shown scene by scene.")
        if not no_browser:
            import webbrowser

            webbrowser.open(address)

    audit = audit or newest_audit(AUDITS)
    serve(store, audit, verdicts, predictions or PREDICTIONS, reviewer or default_reviewer(), port, ready)
