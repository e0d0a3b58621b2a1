"""`cloudcover download` and `cloudcover verify`: fetch and check the files in `data/raw`."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

RAW, STORE = Path("data/raw"), Path("data/store")


@click.command()
@click.option(
    "--params",
    "params_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="params.yaml",
    show_default=True,
    help="Parameters; the section `data` defines what to fetch.",
)
@click.option("--source", type=click.Choice(["local", "azure", "s3", "http", "archive"]), help="Overrides data.source.")
@click.option("--path", help="Overrides data.path.")
@click.option("--url", help="Overrides data.url.")
@click.option("--endpoint", help="Overrides data.endpoint.")
@click.option("--sas-file", help="Overrides data.sas_file.")
@click.option(
    "--subset",
    help="Overrides data.subset: a share (0.1), a number per split (200), or a file of chips and locations.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=RAW, show_default=True)
@click.option("--recheck", is_flag=True, help="Read the existing files and fetch those whose hash differs.")
def download(params_file: Path, out: Path, recheck: bool, **given: str | None) -> None:
    """Fetch the chips that the parameters select.

    The output folder must be empty or hold an earlier download, which is then completed. The workflow downloads in the
    same way, so it reuses what this command has fetched. Pass a SAS in the variable CLOUDCOVER_SAS_URL or in a file.
    There is no option for it, because other users of the computer can read command lines.

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
    named = click.get_current_context().get_parameter_source("params_file") is not ParameterSource.DEFAULT
    params = load(params_file) if named or params_file.exists() else validate({})
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
@click.argument("folders", nargs=-1, type=click.Path(file_okay=False, path_type=Path))
@click.option("--dvc", is_flag=True, help="Check the objects in the project's DVC cache instead of FOLDERS.")
def verify(folders: tuple[Path, ...], dvc: bool) -> None:
    """Compare files, byte by byte, with the hashes recorded when they were fetched or packed.

    FOLDERS contain fetched chips (with files.csv) or packed ones (with index.parquet). The default is data/raw and
    data/store, as far as they exist. Prints all differences, and exits with status 1 if there are any.

    \b
    Examples:
      cloudcover verify
      cloudcover verify data/store
      cloudcover verify --dvc
    """  # noqa: D301
    if dvc:
        _verify_dvc()
        return
    damaged = [folder for folder in folders or _present() if not _verified(folder)]
    if damaged:
        raise click.exceptions.Exit(1)


def _present() -> list[Path]:
    return [
        folder for folder, table in ((RAW, "files.csv"), (STORE, "index.parquet")) if (folder / table).exists()
    ] or [RAW]


def _verified(folder: Path) -> bool:
    """Print the differences in a folder and their remedy; return whether there are none."""
    from cloudcover.data import shards, tables
    from cloudcover.sources.verify import verify as compare

    if (folder / "index.parquet").exists():
        problems, number, kind = (
            shards.verify(folder),
            len(list(folder.glob("*.npy"))),
            "arrays are unchanged since they were packed",
        )
        remedy = "the stage `pack` packs them again (`snakemake --forcerun pack`, `dvc repro --force pack`)"
    elif (folder / "files.csv").exists():
        problems, number = compare(folder), len(tables.FILES.read(folder / "files.csv"))
        kind, remedy = (
            "files are unchanged since they were fetched",
            "`cloudcover download --recheck` fetches them again",
        )
    else:
        raise click.UsageError(f"{folder} has no files.csv: it is not a folder of downloaded chips")
    for path, problem in problems.itertuples(index=False):
        click.echo(f"{path} {problem}")
    if len(problems):
        click.echo(f"Error: {len(problems)} files of {folder} differ: {remedy}", err=True)
    else:
        click.echo(f"{number} {kind}")
    return problems.empty


def _verify_dvc() -> None:
    """Print the corrupted objects of the DVC cache and the outputs they belong to."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from cloudcover.pipeline.dvc_cache import verify

    try:
        repo = Repo()
    except (DvcException, RuntimeError) as error:  # no repository, no git, no home
        raise click.UsageError(f"this folder is not in a readable DVC repository: {error}") from None
    cache = Path(repo.cache.local.path)
    problems, objects = verify(cache, Path(repo.root_dir, "dvc.lock"))
    for name, path in problems.itertuples(index=False):
        click.echo(f"{path}: object {cache / name} is corrupted")
    if len(problems):
        raise click.ClickException(
            f"{len(problems)} of {objects} objects are corrupted: delete them, then take them from the workspace "
            "(`dvc commit --force`, if its files are right) or from the remote (`dvc fetch`)"
        )
    click.echo(f"{objects} objects of the DVC cache are unchanged since they were stored")
