"""The command line, one module per command; libraries are imported when a command runs, so that `--help` is quick."""

from __future__ import annotations

import click

from cloudcover.cli.audit import audit
from cloudcover.cli.compare import compare
from cloudcover.cli.data import download, verify
from cloudcover.cli.export import export
from cloudcover.cli.group import CleanErrors
from cloudcover.cli.manifest import manifest
from cloudcover.cli.params import params
from cloudcover.cli.predict import predict
from cloudcover.cli.review import review
from cloudcover.cli.score import score
from cloudcover.cli.submit import submit
from cloudcover.cli.summary import summary
from cloudcover.cli.synth import synth
from cloudcover.cli.tune import tune
from cloudcover.runtime.signals import end_cleanly


@click.group(cls=CleanErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="cloudcover")
def main(traceback: bool) -> None:
    """Mask clouds in satellite images, and train the models from noisy labels.

    To train models, run the workflow with `snakemake` or `dvc repro` in the project. These commands run single steps by
    hand.

    \b
    Examples:
      cloudcover synth my-chips --chips 100
      cloudcover review
      cloudcover predict my-chips/train_features --out masks
      cloudcover score masks my-chips/train_labels
    """  # noqa: D301
    end_cleanly()


for command in (
    synth,
    download,
    verify,
    audit,
    manifest,
    export,
    predict,
    submit,
    review,
    score,
    compare,
    tune,
    summary,
    params,
):
    main.add_command(command)
