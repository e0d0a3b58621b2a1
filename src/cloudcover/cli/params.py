"""`cloudcover params`: checks the parameters, and renews the files that are made from their model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("params.yaml"))
@click.option("--write", is_flag=True, help="Renew comments, presets, schema and config/README.md of this project.")
def params(file: Path, write: bool) -> None:
    """Check parameters and print them complete.

    Prints FILE (params.yaml) with all defaults and what each key means. With --write the files of the project
    in the current folder that are made from the model of the parameters are renewed: the comments in params.yaml and
    config/presets, workflow/schemas/params.schema.json, config/README.md. Values are kept.

    \b
    Examples:
      cloudcover params config/presets/full.yaml
      cloudcover params --write
    """  # noqa: D301
    from cloudcover.config import render
    from cloudcover.config.params import load
    from cloudcover.runtime.files import write_text

    if not write:
        click.echo(render.render(load(file)), nl=False)
        return
    root = Path()
    if not (root / render.PRESETS).is_dir():
        raise FileNotFoundError(f"there is no folder {render.PRESETS} here: run this in the project's root")
    changed = render.outdated(root)
    for path, text in changed.items():
        write_text(root / path, text)
        click.echo(f"wrote {path}")
    if not changed:
        click.echo("all files are up to date")
