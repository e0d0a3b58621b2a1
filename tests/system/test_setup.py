"""Setup: missing programs are named before anything is downloaded, and a broken environment is created again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cloudcover.cli import main
from cloudcover.data import tables
from harness.project import TINY, Project
from helpers.paths import ROOT, python_path

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")
REMOVED = ("VIRTUAL_ENV", "PYTHON", "MAKEFLAGS", "MAKELEVEL")


def project(folder: Path) -> Path:
    (folder / "workflow").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "workflow/environment.py"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def make(folder: Path, *words: str, check: bool = True, **environment: str | None) -> str:
    """Runs make with a pip that records its environment instead of downloading."""
    given = {**os.environ, "HOME": str(folder.parent), **environment}
    given = {name: value for name, value in given.items() if value is not None and name not in REMOVED}
    options = [f"PYTHON={sys.executable}"] if not any(word.startswith("PYTHON=") for word in words) else []
    command = ["make", "PIP=env > seen; true", *options, *words]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    assert (done.returncode == 0) == check, printed
    return printed


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = project(tmp_path_factory.mktemp("made") / "project")
    make(folder, ".venv/installed")
    return folder


def works(folder: Path) -> bool:
    done = subprocess.run([folder / ".venv/bin/python", "-c", "import pip"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("name", ["my project", "a:b", "50%", "it's", "{x}", "a$b", "#1", "tab\there"])
def test_a_path_that_tools_cannot_use_is_named_before_anything_is_made(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path / name)
    command = [sys.executable, "workflow/environment.py", "demo"]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "move the project to a path without it" in done.stderr
    assert not (folder / ".venv").exists()


def test_make_itself_says_so_for_a_space(tmp_path: Path) -> None:
    folder = project(tmp_path / "my project")
    assert "move the project to a path without it" in make(folder, ".venv/installed", check=False)
    assert not (folder / "seen").exists()


def test_nothing_is_done_again_for_an_environment_that_works(ready: Path) -> None:
    (ready / "seen").unlink()
    assert "creating" not in make(ready, ".venv/installed")
    assert not (ready / "seen").exists()


@pytest.mark.parametrize("broken", ["pip", "python", "nothing but a folder"])
def test_a_broken_environment_is_made_anew_and_installed_into(tmp_path: Path, ready: Path, broken: str) -> None:
    folder = project(tmp_path / "project")
    if broken == "nothing but a folder":
        (folder / ".venv").mkdir()
    else:
        shutil.copytree(ready / ".venv", folder / ".venv", symlinks=True)
        if broken == "pip":
            for path in (folder / ".venv").glob("lib/*/site-packages/pip*"):
                shutil.rmtree(path)
        else:
            (folder / ".venv/bin/python").unlink()
            (folder / ".venv/bin/python").symlink_to("/nowhere/python3")
    assert not works(folder) if broken == "pip" else True
    assert "creating .venv again" in make(folder, ".venv/installed")
    assert works(folder)
    assert (folder / "seen").exists()


@pytest.mark.parametrize("kind", ["files", "a link"])
def test_a_folder_of_somebody_else_is_not_taken_for_a_broken_environment(tmp_path: Path, kind: str) -> None:
    folder, mine = project(tmp_path / "project"), tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    if kind == "a link":
        (folder / ".venv").symlink_to(mine)
    else:
        mine.rename(folder / ".venv")
    assert "was not created by make: move it" in make(folder, ".venv/installed", check=False)
    assert (folder / ".venv/notes.txt").read_text() == "mine"


def test_another_python_is_taken_when_it_is_named_and_only_then(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/pyvenv.cfg").touch()
    (folder / ".venv/bin/python").write_text("#!/bin/sh\necho 3 10\n")
    (folder / ".venv/bin/python").chmod(0o755)
    command = [sys.executable, "workflow/environment.py"]
    environment = os.environ | {"HOME": str(tmp_path)}
    subprocess.run([*command, "demo"], cwd=folder, env=environment, check=True)
    assert (folder / ".venv/bin/python").read_text().startswith("#!/bin/sh")
    make(folder, ".venv/installed", f"PYTHON={sys.executable}")
    assert works(folder)


def test_a_python_that_is_too_old_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    program = "import environment as e; e.OLDEST = e.NEWEST = (3, 99); e.main()"
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": python_path(folder / "workflow")}
    command = [sys.executable, "-c", program, "demo"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "but Python 3.99 to 3.99 is needed: name one, such as `make demo PYTHON=python3.12`" in done.stderr
    assert not (folder / ".venv").exists()


def test_a_user_without_a_home_and_a_name_gets_both(tmp_path: Path, ready: Path) -> None:
    for home in (None, "/proc/nowhere"):
        (ready / ".venv/installed").unlink()
        make(ready, ".venv/installed", HOME=home, LOGNAME=None, USER=None)
        seen = dict(line.split("=", 1) for line in (ready / "seen").read_text().splitlines() if "=" in line)
        assert seen["HOME"] == str(ready / "work/home")
        assert (ready / "work/home").is_dir()
        assert seen["LOGNAME"] == "user"


def test_dvc_targets_ask_for_git_and_a_clone_first(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    assert "DVC needs git and a clone of the project" in make(folder, "repro", check=False)
    assert not (folder / ".venv").exists()


@pytest.fixture
def without_git(tmp_path: Path) -> str:
    """A PATH with all programs of the machine but git."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for place in os.environ["PATH"].split(":"):
        for program in sorted(Path(place).glob("*")) if place else ():
            if not program.name.startswith("git") and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    assert not shutil.which("git", path=str(folder))
    return str(folder)


def test_the_tests_ask_for_git_first(tmp_path: Path, without_git: str) -> None:
    folder = project(tmp_path / "project")
    printed = make(folder, "test", check=False, PATH=without_git)
    assert "the tests run DVC, which needs git: install git, or run `make check`" in printed
    assert not (folder / ".venv").exists()


def test_the_chain_runs_in_a_folder_that_is_no_clone_on_a_machine_without_git(
    tmp_path: Path, without_git: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**TINY, "synthetic": {**TINY["synthetic"], "chips": 12, "locations": 2, "scenes": 4}}
    tarball = Project(tmp_path / "project", values, forks=True)
    monkeypatch.setenv("PATH", without_git)
    environment = tarball.environment(forks=True)
    path = environment["PATH"].split(":")
    assert "needs git" not in tarball.snakemake("data/folds.csv", "data/store/index.parquet")
    assert not [folder for folder in path if (Path(folder) / "git").exists()]
    assert not (tarball.folder / ".git").exists()
    assert (tarball.folder / "data/folds.csv").exists()


def test_verify_without_a_repository_or_git_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    for folder in (tmp_path, tmp_path / ".dvc"):
        runner = CliRunner()
        here = Path.cwd()
        os.chdir(folder)
        try:
            result = runner.invoke(main, ["verify", "--dvc"])
        finally:
            os.chdir(here)
        assert result.exit_code == 2
        assert "not in a readable DVC repository" in result.output
        assert "Traceback" not in result.output


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_lines_end_alike_whatever_git_is_told(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    origin = tmp_path / "origin"
    origin.mkdir()
    for name in (".gitattributes", "Makefile", "params.yaml"):
        shutil.copy(ROOT / name, origin / name)
    git("init", "-q", "origin")
    git("-C", "origin", "add", "-A")
    git("-C", "origin", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x")
    git("-c", "core.autocrlf=true", "clone", "-q", "origin", "clone")
    assert (tmp_path / "clone/Makefile").read_bytes() == (ROOT / "Makefile").read_bytes()
    assert git("-C", "clone", "-c", "core.autocrlf=true", "status", "--porcelain") == ""


def test_a_store_of_many_shards_is_read_where_few_files_may_be_open(tmp_path: Path) -> None:
    number = 300
    values = {"str": "", "int64": 0, "float64": 0.0, "bool": False}
    index = pd.DataFrame({c: values[t] for c, t in tables.INDEX.columns.items()}, index=range(number))
    index["chip_id"], index["shard"], index["split"] = [f"c{i:03d}" for i in range(number)], range(number), "train"
    tables.INDEX.write(index, tmp_path / "index.parquet")
    for shard in range(number):
        np.save(tmp_path / f"chips-{shard:05d}.npy", np.full((1, 1, 2, 2), shard, np.uint16))
        np.save(tmp_path / f"labels-{shard:05d}.npy", np.zeros((1, 2, 2), np.uint8))
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from cloudcover.data.store import ChipStore\n"
        "store = ChipStore(sys.argv[1]); ids = list(store.index.index)\n"
        "print(store.chips(ids).sum() + store.labels(ids).sum())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(4 * sum(range(number))), done.stderr
