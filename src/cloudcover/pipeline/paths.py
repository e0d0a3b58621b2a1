"""Paths of the files of runs, folds and rounds; no other module knows how they are built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloudcover.config.runs import FINAL, MANIFEST, ORACLE, is_round, member_of
from cloudcover.config.sections import DataParams

PSEUDO_ARRAYS = {"hard": "masks.npy", "soft": "probabilities.npy"}
"""Array that belongs to a table of pseudo-labels, by the targets of the next training."""


def fold_of(path: Path) -> int:
    """Return the fold number of a model folder, `models/RUN/fold<k>`, or of a file named after one."""
    return int(path.stem.removeprefix("fold"))


def run_of_curve(path: Path) -> str:
    """Return the run name of a learning curve, `reports/learning_curves/RUN/fold<k>.csv`."""
    return path.parent.relative_to("reports/learning_curves").as_posix()


def weights(run: str, folds: Iterable[int]) -> list[str]:
    """List the weight files of a run."""
    return [f"models/{run}/fold{fold}/model.safetensors" for fold in folds]


def labels(name: str) -> str:
    """Locate the table of labels to learn from: the manifest, or the labels after a round."""
    return f"data/labels/{name}" if name == MANIFEST else f"data/labels/{name}/{MANIFEST}"


def run_folders(files: Iterable[str]) -> list[Path]:
    """List the folders of runs, `data/test/RUN` or `data/oof/RUN`, from their files."""
    return list(dict.fromkeys(Path(file).parent for file in files))


def source_tables(data: DataParams, project: Path = Path()) -> list[str]:
    """List the tables of a local set, and the folder of unlabelled chips; other sources depend on the parameters alone.

    Args:
        data: Location of the set.
        project: Folder that relative paths refer to.
    """
    further = [data.unlabelled] if data.unlabelled else []
    if data.source != "local":
        return further
    tables = [f"{data.path}/{split}_metadata.csv" for split in ("train", "test")]
    return [*(table for table in tables if table == tables[0] or (project / table).exists()), *further]


def stage_name(rule: str, run: str | None = None) -> str:
    """Name the stage of `dvc.yaml` for a rule's jobs of one run or round."""
    if run is None:
        return rule
    rule = rule.removesuffix(f"_{FINAL}")
    if member := member_of(run):
        return f"{rule}_{FINAL}@{member}"
    if is_round(run):
        return f"{rule}@{run}" if rule == "pseudo_label" else f"{rule}_round@{run}"
    return f"{rule}_reference@{run}" if run == ORACLE else f"{rule}_{run}"
