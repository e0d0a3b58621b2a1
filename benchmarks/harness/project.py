"""A copy of the project in a separate folder, in which tests and benchmarks run the real `snakemake` and `dvc`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from cloudcover.config.params import load, validate
from cloudcover.config.render import render
from cloudcover.config.runs import chain
from cloudcover.pipeline.paths import source_tables, stage_name
from harness.forked import BIN, programs

ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, Any] = {
    "data": {"chip_size": 64, "chips_per_shard": 16},
    "synthetic": {"locations": 6, "scenes": 8, "chips": 48, "unlabelled": 0.1},
    "folds": {"number": 2, "test_share": 0.3},
    "model": {"decoder_channels": [16, 16, 8, 8, 8]},
    "training": {"steps": 12, "batch_size": 4, "learning_rate": 0.01},
    "rounds": chain(2),
    "pseudo_labels": {"pixel_confidence": 0.6, "chip_confidence": 0.5},
    "final": {"labels": "round2"},
    "evaluation": {"resamples": 100, "references": []},
}


STAGE_RUNS = r"^Running stage '([\w@-]+)'"
"""What `dvc repro` prints of a stage that it runs."""

ONE_ROUND: dict[str, Any] = {"rounds": chain(1), "final": {"labels": "round1"}}


class Project:
    """The project's own files, below `folder`, with small parameters.

    With `forks`, commands run in forks of a process with all libraries, which is several times as fast.
    """

    def __init__(self, folder: Path, values: dict[str, Any], *, forks: bool = False) -> None:
        self.folder = folder
        self.forks = forks
        for name in ("workflow", "config", "profiles", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("Snakefile", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder / name)
        self.write_params(values)

    @classmethod
    def at(cls, folder: Path, *, forks: bool = False) -> Project:
        """Use the project in an existing folder, such as a clone."""
        project = object.__new__(cls)
        project.folder, project.forks = folder, forks
        return project

    def write_params(self, values: dict[str, Any]) -> None:
        """Write params.yaml: the given values over the defaults."""
        (self.folder / "params.yaml").write_text(render(validate(values)))

    def change(self, section: str, key: str, value: Any) -> None:
        """Change one value of params.yaml."""
        values = yaml.safe_load((self.folder / "params.yaml").read_text())
        values[section][key] = value
        self.write_params(values)

    def environment(self, *, forks: bool = False) -> dict[str, str]:
        """Return the variables for commands: this environment's programs, and the project's own library."""
        path = f"{programs()}:{BIN}" if forks else str(BIN)
        libraries = filter(None, [str(self.folder / "src"), os.environ.get("PYTHONPATH")])
        return {
            **os.environ,
            "PATH": f"{path}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(libraries),
        }

    def run(self, *command: str, check: bool = True, forks: bool | None = None) -> str:
        """Run a command of the environment and return its output; with `check` it must succeed."""
        environment = self.environment(forks=self.forks if forks is None else forks)
        found = shutil.which(command[0], path=environment["PATH"])
        done = subprocess.run(
            [found or command[0], *command[1:]], cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=1200, check=False,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{printed[-6000:]}")
        if not check:
            assert done.returncode, f"{' '.join(command)} was expected to fail:\n{printed[-3000:]}"
        return printed

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Run Snakemake as in the README."""
        return self.run("snakemake", "--resources", "gpu=1", "--cores", "2", *arguments, check=check)

    def dry(self, *command: str) -> str:
        """Run a dry run of `snakemake` or `dvc`, which must succeed, and return its output."""
        return self.run(*command, forks=True)

    def pending(self, *targets: str) -> set[str]:
        """List the rules that Snakemake would run."""
        printed = self.dry("snakemake", "--dry-run", "--resources", "gpu=1", "--cores", "2", *targets)
        return set(re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE)) - {"all"}

    def pending_stages(self) -> set[str]:
        """List the stages of dvc.yaml that Snakemake would run, completely or in part."""
        printed = self.dry("snakemake", "--dry-run", "--resources", "gpu=1", "--cores", "2")
        stages = set()
        for block in re.split(r"^(?:local)?rule ", printed, flags=re.MULTILINE)[1:]:
            wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
            pairs = dict(pair.split("=") for pair in wildcards.group(1).split(", ")) if wildcards else {}
            stages.add(stage_name(block.partition(":")[0], pairs.get("run", pairs.get("round"))))
        return stages - {"all"}

    def stale_stages(self) -> set[str]:
        """List the stages that DVC would run if each changed its outputs, except `code`, which is run first."""
        self.dry("dvc", "repro", "code")
        printed = self.dry("dvc", "repro", "--dry", "--force-downstream")
        return set(re.findall(STAGE_RUNS, printed, re.MULTILINE))

    def all_stages(self) -> set[str]:
        """List the stages of dvc.yaml except `code`."""
        printed = self.dry("dvc", "stage", "list", "--name-only")
        return set(printed.split()) - {"code"}

    def init_dvc(self) -> None:
        """Make the folder a git and DVC repository with a local remote, as the project is."""
        self.run("git", "init", "-q")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        shutil.copytree(
            ROOT / ".dvc", self.folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local")
        )
        text = (ROOT / "dvc.yaml").read_text()
        if tables := source_tables(load(self.folder / "params.yaml").data, self.folder):
            # as the message of the stage says where a local set's tables are missing
            command = "run download data/raw/files.csv\n"
            text = text.replace(command, f"{command}    deps: [{', '.join(tables)}]\n", 1)
        (self.folder / "dvc.yaml").write_text(text)
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "start")
