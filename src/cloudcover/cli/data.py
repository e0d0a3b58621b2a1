"""`cloudcover download` and `cloudcover verify`: the files of `data/raw`, by hand."""

from __future__ import annotations

from pathlib import Path

import click

RAW = Path("data/raw")


@click.command()
@click.option(
    "--params",
    "params_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="params.yaml",
    show_default=True,
    help="Its section `data` says what to fetch.",
)
@click.option(
    "--source", type=click.Choice(["local", "azure", "s3", "http", "archive"]), help="Instead of data.source."
)
@click.option("--path", help="Instead of data.path.")
@click.option("--url", help="Instead of data.url.")
@click.option("--endpoint", help="Instead of data.endpoint.")
@click.option("--sas-file", help="Instead of data.sas_file.")
@click.option(
    "--subset",
    help="Instead of data.subset: a share (0.1), a number per split (200), or a file of chips and locations.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RAW, show_default=True)
@click.option("--recheck", is_flag=True, help="Read the files that are there and fetch those whose hash differs.")
def download(params_file: Path, out: Path, recheck: bool, **given: str | None) -> None:
    """Fetch the chips that the parameters ask for.

    The folder is empty, or holds an earlier download: then only what is missing is fetched. The workflow's own
    download does the same: it finds what this command has fetched.
    A SAS comes from the variable CLOUDCOVER_SAS_URL or from a file; there is no option for it, because others can read
    the command lines of a computer.

    \b
    Examples:
      cloudcover download
      cloudcover download --source azure --sas-file sas_westeurope.txt --subset 200
      cloudcover download --recheck
    """  # noqa: D301
    import logging

    import yaml

    from cloudcover.config.params import load, validate
    from cloudcover.data import tables
    from cloudcover.sources.fetch import fetch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    params = load(params_file) if params_file.exists() else validate({})
    changes: dict[str, object] = {key: value for key, value in given.items() if value is not None}
    if (subset := given["subset"]) is not None and not Path(subset).exists():
        changes["subset"] = yaml.safe_load(subset)
    values = {"data": params.data.model_dump() | changes, "evaluation": {"references": []}}
    data = validate(values, "these options").data
    if data.source == "synthetic":
        raise click.UsageError("data.source is synthetic: nothing to download (see `cloudcover synth`)")
    truth = Path("data/truth") if out.resolve() == RAW.resolve() else None
    fetch(data, params.synthetic, params.seed, out, truth, recheck=recheck)
    files = tables.FILES.read(out / "files.csv")
    click.echo(f"{len(files)} files, {files['bytes'].sum() / 1e6:,.1f} MB in {out}")


@click.command()
@click.argument("raw", type=click.Path(file_okay=False, path_type=Path), default=RAW)
@click.option("--dvc", is_flag=True, help="Read the objects of the project's DVC cache instead of RAW.")
def verify(raw: Path, dvc: bool) -> None:
    """Compare the files in RAW with their manifest, byte by byte.

    Prints what differs, and ends with status 1 if anything does.

    \b
    Examples:
      cloudcover verify data/raw
      cloudcover verify --dvc
    """  # noqa: D301
    if dvc:
        _verify_dvc()
        return
    from cloudcover.data import tables
    from cloudcover.sources.verify import verify as compare

    if not (raw / "files.csv").exists():
        raise click.UsageError(f"{raw} has no files.csv: nothing was downloaded to it")
    problems = compare(raw)
    for path, problem in problems.itertuples(index=False):
        click.echo(f"{path} {problem}")
    if len(problems):
        raise click.ClickException(f"{len(problems)} files differ: `cloudcover download --recheck` fetches them again")
    click.echo(f"{len(tables.FILES.read(raw / 'files.csv'))} files are as they were fetched")


def _verify_dvc() -> None:
    """Names the corrupted objects of the DVC cache and what they are part of."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    from cloudcover.pipeline.dvc_cache import verify

    try:
        repo = Repo()
    except NotDvcRepoError:
        raise click.UsageError("this folder is not in a DVC repository") from None
    cache = Path(repo.cache.local.path)
    problems, objects = verify(cache, Path(repo.root_dir, "dvc.lock"))
    for name, path in problems.itertuples(index=False):
        click.echo(f"{path}: object {cache / name} is corrupted")
    if len(problems):
        raise click.ClickException(
            f"{len(problems)} of {objects} objects are corrupted: delete them, then take them from the workspace "
            "(`dvc commit --force`, if its files are right) or from the remote (`dvc fetch`)"
        )
    click.echo(f"{objects} objects of the DVC cache are as they were stored")
