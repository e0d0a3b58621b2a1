"""`cloudcover params`: check the parameters, and update the files generated from their model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("preset", default="params.yaml")
@click.option("--write", is_flag=True, help="Update this project's params.yaml, schema and config/README.md.")
def params(preset: str, write: bool) -> None:
    """Check parameters and print them in full.

    Prints PRESET, a file or the name of a preset in config/presets (default: params.yaml), with all defaults and a
    comment for each key. With --write, updates the generated files of the project in the current folder: the comments
    in params.yaml, workflow/schemas/params.schema.json and config/README.md. Values are preserved.

    \b
    Examples:
      cloudcover params full > params.yaml
      cloudcover params --write
    """  # noqa: D301
    from cloudcover.config import render
    from cloudcover.config.params import load
    from cloudcover.runtime.files import replaceable, write_text

    if not write:
        file = Path(preset) if Path(preset).is_file() else render.preset_path(preset)
        click.echo(render.render(load(file)), nl=False)
        return
    root = Path()
    if not (root / render.PRESETS).is_dir():
        raise FileNotFoundError(f"there is no folder {render.PRESETS} here: run this in the project's root")
    changed = render.outdated(root)
    files = {path: replaceable(root / path) for path in changed}
    for path, text in changed.items():
        write_text(files[path], text)
        click.echo(f"wrote {path}")
    if not changed:
        click.echo("all files are up to date")
