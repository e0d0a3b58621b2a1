"""Remove what the workflow and its commands have made in the project's own folders: `make clean`.

Other files in these folders stay: files are selected by the names that the rules give them, and in folders whose files
are named by chips, by the lists that the program keeps of them (`.cloudcover`, `files.csv`, `masks.csv`). Links are not
followed. The script needs no library, so that it works without `.venv`.
"""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

WHOLE = (
    ".snakemake",
    "logs",
    "benchmarks/out",
    "work/train",
    "work/curves",
    "work/inductor",
    "work/tune/train",
    "work/tune/curves",
    "work/tune/inductor",
    "work/*/seed[0-9]*",
    "data/raw/.download",
)
"""Folders that contain only working files."""

RUNS = ("baseline", "oracle", "round[0-9]*", "final/*")

FILES = (
    "data/folds.csv",
    "data/quarantine.csv",
    "data/evidence/evidence.parquet",
    "data/evidence/tree_votes.npy",
    "data/audit/baseline.csv",
    "data/audit/round[0-9]*.csv",
    "data/labels/manifest.csv",
    "data/store/index.parquet",
    "data/store/shard-[0-9][0-9][0-9][0-9][0-9].parquet",
    "data/store/chips-[0-9][0-9][0-9][0-9][0-9].npy",
    "data/store/labels-[0-9][0-9][0-9][0-9][0-9].npy",
    *(f"data/labels/round[0-9]*/{name}" for name in ("manifest.csv", "masks.npy", "probabilities.npy")),
    "data/test/final/index.csv",
    "data/test/final/masks.npy",
    *(
        f"data/{part}/{run}/{name}"
        for part in ("oof", "test")
        for run in RUNS
        for name in ("index.csv", "seconds.csv", "none.npy", "vflip.npy", "hflip.npy", "flips.npy", "d4.npy")
    ),
    *(
        f"models/{run}/fold[0-9]*/{name}"
        for run in RUNS
        for name in ("model.safetensors", "model.json")
    ),
    *(f"reports/learning_curves/{run}/fold[0-9]*.csv" for run in RUNS),
    "models/calibration.json",
    "models/bundle/bundle.json",
    "models/bundle/README.md",
    *(f"models/bundle/*-fold[0-9]*/{name}" for name in ("model.safetensors", "model.json")),
    "reports/index.html",
    "reports/learning_curves.csv",
    "reports/metrics.json",
    "reports/truth.json",
    *(
        f"reports/tables/{name}.csv"
        for name in (
            "chips", "coverage", "ensemble", "folds", "locations", "pairs", "pseudo_labels_round[0-9]*", "reliability",
            "scenes", "truth_chips", "tta",
        )
    ),
    *(f"reports/*/{name}" for name in ("runs.csv", "steps.csv", "chains.csv", "labels.csv", "proof.png")),
    *(f"reports/*/{name}" for name in ("members.csv", "tta.csv", "ablation.png")),
    "work/tune/augmentation.journal",
    "work/tune/augmentation.journal.busy",
)  # fmt: skip
"""Patterns of the files that rules and commands write in the project; a test compares them with the rules' outputs."""

TABLES = ("files.csv", "masks.csv")
"""Tables that list the files in their folder."""

LISTED = ("data/raw", "data/truth", "data/predictions")
"""Folders with files named by chips."""


def clean(project: Path) -> None:
    """Remove what was made below `project`, and folders that are empty afterwards."""
    for pattern in WHOLE:
        for folder in list(project.glob(pattern)):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
                _remove_empty(folder.parent, project)
    for name in LISTED:
        folder = project / name
        for path in _listed(folder):
            _remove(folder / path, folder)
        if (folder / ".cloudcover").exists():
            for table in TABLES:
                _remove(folder / table, folder)
        _remove(folder / ".cloudcover", folder)
        _remove_empty(folder, project)
    for pattern in FILES:
        for file in list(project.glob(pattern)):
            _remove(file, project)


def _listed(folder: Path) -> set[str]:
    """Find the program's files below a folder by its record and its tables."""
    found = set()
    if (folder / ".cloudcover").is_file():
        # A name need not be text, and may hold any character but a line feed.
        found |= set((folder / ".cloudcover").read_bytes().decode(errors="surrogateescape").split("\n")) - {""}
    for table in TABLES:
        if (folder / table).is_file():
            with (folder / table).open(encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file)
                if {"path", "sha256"} <= set(rows.fieldnames or []):
                    found |= {row["path"] for row in rows if row["path"]} | {table}
    return found


def _remove(file: Path, root: Path) -> None:
    """Remove a file, or a link, whose folder lies below `root` without links or dots on the way."""
    straight = file.parent.resolve() == root.resolve() / os.path.relpath(file.parent, root)
    if straight and os.path.lexists(file) and (file.is_symlink() or not file.is_dir()):
        file.unlink()
        _remove_empty(file.parent, root)


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder and those above it, up to `root`, as long as they are empty; a link stays."""
    while folder != root and folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


if __name__ == "__main__":
    clean(Path.cwd())
