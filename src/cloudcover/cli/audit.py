"""`cloudcover audit`: judge labels by the out-of-fold probabilities of any model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import click

from cloudcover.config.sections import Tta


@click.command()
@click.argument("store", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--probabilities",
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with index.csv (chip_id,row,fold) and POLICY.npy (N x H x W bytes, 255 = certain cloud).",
)
@click.option(
    "--policy",
    type=click.Choice(get_args(Tta)),
    default="vflip",
    show_default=True,
    help="Name of the array in that folder, without .npy.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed for the audit's trees.")
@click.option("--top", type=click.IntRange(0), default=20, show_default=True, help="Number of labels to print.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write all labels to this CSV.")
@click.option("--threads", type=click.IntRange(1), help="Number of threads; by default one per processor core.")
def audit(store: Path, folder: Path, policy: Tta, seed: int, top: int, out: Path | None, threads: int | None) -> None:
    """Print the labels of STORE that are most probably wrong.

    STORE is a folder of packed chips, such as data/store. The audit compares each label with the probabilities in
    FOLDER, the colours of the chip, and boosted trees that it trains itself (seconds on a CPU). The probabilities must
    come from models that have not seen the chip's scene. Suspicion is the probability that the label is wrong. Chips
    with a negative fold are left out.

    The last line gives the estimated share of wrong labels. The share is not determined if hardly any label is wrong,
    or if labels are wrong in a way that the audit cannot detect. The order still shows which labels to review first.

    \b
    Example:
      cloudcover audit data/store --probabilities data/oof/baseline --out audit.csv
    """  # noqa: D301
    from functools import partial

    from cloudcover.data import tables
    from cloudcover.data.ownership import refuse_other_file
    from cloudcover.data.store import ChipStore
    from cloudcover.labels.audit import judge_labels
    from cloudcover.labels.evidence import gather_evidence
    from cloudcover.labels.score import error_share_text
    from cloudcover.masks.out_of_fold import OutOfFold
    from cloudcover.runtime.files import replaceable

    arrays = sorted(path.stem for path in folder.glob("*.npy"))
    if policy not in arrays:
        raise click.BadParameter(f"{folder} has no {policy}.npy; it has {arrays or 'no arrays'}", param_hint="--policy")
    if out:
        refuse_other_file(out, tables.AUDIT)
        out = replaceable(out)
    threads = threads or os.cpu_count() or 1
    chips, out_of_fold = ChipStore(store), OutOfFold([folder])
    folds = out_of_fold.table
    evidence, votes = gather_evidence(chips, folds, seed, threads)
    probabilities = partial(out_of_fold.probabilities, policy=policy)
    table = judge_labels(chips, evidence, votes, probabilities, folds, threads=threads)
    if out:
        tables.AUDIT.write(table, out)
    ranked = table.sort_values("suspicion", ascending=False, kind="stable").head(top)
    click.echo(ranked[["chip_id", "suspicion", "reasons"]].to_string(index=False, float_format="{:.3f}".format))
    click.echo(f"{len(table)} labels; estimated share of wrong labels: {error_share_text(table)}")
