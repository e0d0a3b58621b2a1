"""A copy of the project in a folder of its own, in which tests run the real `snakemake` and `dvc`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from cloudcover.params import validate
from cloudcover.reference import render

BIN = Path(sys.executable).parent
TINY: dict[str, Any] = {
    "data": {"chip_size": 64, "chips_per_shard": 16},
    "synthetic": {"locations": 6, "scenes": 8, "chips": 48, "unlabelled": 0.1},
    "audit": {"folds": 2, "epochs": 3},
    "folds": {"number": 2},
    "model": {"decoder_channels": [16, 16, 8, 8, 8]},
    "training": {"epochs": 3, "batch_size": 4, "learning_rate": 0.01},
    "pseudo_labels": {"rounds": 2, "pixel_confidence": 0.6, "chip_confidence": 0.5},
    "evaluation": {"resamples": 100, "oracle": False},
}


class Project:
    """The project's own files, below `folder`, with small parameters."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        for name in ("workflow", "config", "profiles", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("Snakefile", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder / name)
        self.write_params(values)

    def write_params(self, values: dict[str, Any]) -> None:
        """Writes params.yaml: the given values over the defaults."""
        (self.folder / "params.yaml").write_text(render(validate(values)))

    def change(self, section: str, key: str, value: Any) -> None:
        """Changes one value of params.yaml."""
        values = yaml.safe_load((self.folder / "params.yaml").read_text())
        values[section][key] = value
        self.write_params(values)

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command of the environment and returns what it printed; with `check` it must succeed."""
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(self.folder / "src")}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=1200, check=False
        )
        printed = done.stdout + done.stderr
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{printed[-6000:]}")
        if not check:
            assert done.returncode, f"{' '.join(command)} was expected to fail:\n{printed[-3000:]}"
        return printed

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Runs Snakemake as the README says."""
        return self.run("snakemake", "--resources", "gpu=1", "--cores", "2", *arguments, check=check)

    def pending(self, *targets: str) -> set[str]:
        """Rules that Snakemake would run."""
        printed = self.snakemake("--dry-run", *targets)
        return set(re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE)) - {"all"}

    def init_dvc(self) -> None:
        """Makes the folder a git and DVC repository with a local remote beside it, as the project is."""
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        shutil.copytree(
            ROOT / ".dvc", self.folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local")
        )
        self.run("python", "workflow/dvc_stage.py", "write")
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "start")
