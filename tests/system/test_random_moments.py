"""A kill -9 or a full disk at a random moment of a command: no user file changes, and no incomplete file is visible.

A command replaces the results of an earlier run, which were made of other inputs, and is stopped at one of its file
operations. The next run meets what this one has left. `CLOUDCOVER_MOMENTS` is the number of moments (default 4).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from cloudcover.config.sections import ModelParams
from cloudcover.data.layout import write_file_table
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.runtime.files import sha256
from harness.forked import programs
from helpers import moments
from helpers.disks import mounted
from helpers.layouts import BANDS, make_layout
from helpers.moments import COMMANDS, bundle
from helpers.networks import ENCODER, card
from helpers.servers import run_web

MOMENTS = int(os.environ.get("CLOUDCOVER_MOMENTS", "4"))
VARIANTS = ("0", "1")
"""Two sets, pairs of models and bundles: which one a run is given is drawn."""
SEALS = {"pack": "store/index.parquet", "export": "bundle.json", "bundle": "bundle.json"}
"""What says that the results of a command are complete and belong together."""


def make_given(folder: Path) -> None:
    network = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    for variant in VARIANTS:
        make_layout(folder / "sets" / variant, chips=7 - int(variant), seed=int(variant))
        write_file_table(folder / "sets" / variant, "test")
        for fold in range(2):
            torch.manual_seed(10 * int(variant) + fold)
            out = folder / "models" / variant / "unet" / f"fold{fold}"
            save_model(out, build_model(network, BANDS), card(fold=fold))
        bundle(folder, "", variant, folder / "bundles" / variant)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of what commands read, and the address of its sets."""
    folder = tmp_path_factory.mktemp("given")
    make_given(folder)
    with run_web(folder / "sets") as web:
        yield folder, web.url


def run(
    command: str, given: tuple[Path, str], variant: str, out: Path, act: str = "kill", moment: int = 0
) -> tuple[int, str]:
    """Run a command in a separate process; return its file operations and error (`killed` if it was killed)."""
    words = [programs() / "python", moments.__file__, command, *given, variant, out, act, moment]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if act == "kill" and moment and done.returncode:
        return moment, "killed"
    assert done.returncode == 0, done.stderr
    seen, problem = json.loads(done.stdout.splitlines()[-1])
    return seen, problem


@pytest.fixture(scope="module")
def whole() -> Callable[[str, tuple[Path, str]], tuple[dict, dict]]:
    """Runs a command to its end, once for each given folder: the file operations and the results of each variant."""

    @cache
    def count(command: str, given: tuple[Path, str]) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
        folder = given[0] / "whole" / command  # hard links cannot lead to another disk
        operations, complete = {}, {}
        for variant in VARIANTS:
            operations[variant], problem = run(command, given, variant, folder / variant)
            assert not problem
            complete[variant] = visible(folder / variant)
        shutil.rmtree(given[0] / "whole")
        return operations, complete

    return count


def visible(folder: Path) -> dict[str, str]:
    """Hash every file below a folder except hidden ones."""
    files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(name): sha256(p) for name, p in files.items() if not any(part.startswith(".") for part in name.parts)}


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.fixture(params=["kill", "fill"])
def act(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """What happens at the moment; a disk that is to be filled is a small one of its own."""
    act: str = request.param
    with mounted(tmp_path / "disk", 128) if act == "fill" else nullcontext():  # downloads keep 64 MiB free
        yield act


@pytest.mark.parametrize("command", COMMANDS)
def test_a_random_moment_changes_nothing_and_shows_no_half_file(given, whole, tmp_path, command, act):
    if command == "export" and find_spec("openvino") is None:
        pytest.skip("needs the extra cloudcover[openvino]")
    out = tmp_path / "disk/out"
    if command == "hardlink":  # which cannot lead to another disk
        given = shutil.copytree(given[0], tmp_path / "disk/given"), given[1]
    before = visible(given[0])
    operations, complete = whole(command, given)
    run(command, given, "0", out)
    mine = {path / "mine.txt" for path in (out, *out.rglob("[!.]*")) if path.is_dir()}
    for path in mine:
        path.write_text("mine")
    own = {str(path.relative_to(out)): sha256(path) for path in mine}
    stopped = 0
    for seed in range(MOMENTS):
        draw = random.Random(seed)
        variant = draw.choice(VARIANTS)
        _, problem = run(command, given, variant, out, act, draw.randint(1, operations[variant]))
        stopped += bool(problem)
        found = visible(out)
        assert own.items() <= found.items()
        results = dict(found.items() - own.items())
        half = results.items() - complete["0"].items() - complete["1"].items()
        assert not half, f"moment {seed}, {problem}: {half}"
        if act == "fill":
            said = ("No space left on device", "the disk may be full", "make room")
            assert not problem or (any(text in problem for text in said) and str(out) in problem), problem
            assert parts(out) == [], f"moment {seed}, {problem}"
            (out.parent / "filler").unlink(missing_ok=True)
        if not problem:
            assert results == complete[variant]
        elif SEALS.get(command) in found:
            assert results in complete.values(), f"a mixture is sealed, moment {seed}, {problem}"
    assert stopped
    assert run(command, given, "1", out)[1] == ""
    assert parts(out) == []
    assert visible(out) == complete["1"] | own
    assert visible(given[0]) == before
