"""What has to be installed: prediction needs the core alone, and other commands name their extra."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.paths import ROOT


def closure(names: list[str]) -> set[str]:
    """Distributions with everything that they need themselves, by normalised name."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = [{"extra": extra} for extra in ("", *requirement.extras)]
        if name in found:
            continue
        found.add(name)
        try:
            needed = map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
        waiting += [n for n in needed if not n.marker or any(n.marker.evaluate(extra) for extra in extras)]
    return found


CORE_ONLY = """
import json, sys
refused = set(json.loads(sys.argv[1]))
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in refused else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
from click.testing import CliRunner
from cloudcover.cli import main
for command in json.loads(sys.argv[2]):
    result = CliRunner().invoke(main, command)
    print(json.dumps([result.exit_code, result.output + repr(result.exception)]))
"""


def test_prediction_needs_the_core_alone_and_other_commands_name_their_extra(
    bundle: Path, three_chips: Path, tmp_path: Path
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(project["dependencies"]) <= 12
    core = closure(project["dependencies"])
    modules = packages_distributions()
    refused = sorted(m for m, found in modules.items() if not {canonicalize_name(name) for name in found} & core)
    assert {"snakemake", "dvc", "pyarrow", "sklearn", "starlette", "obstore", "optuna"} <= set(refused)
    refused.remove("cloudcover")
    (tmp_path / "params.yaml").write_text(
        "{data: {source: http, url: http://localhost:1/set}, evaluation: {references: []}}"
    )
    commands = [
        ["predict", str(three_chips / "train_features"), "--model", str(bundle), "--out", str(tmp_path / "masks")],
        ["score", str(tmp_path / "masks"), str(three_chips / "train_labels")],
        ["review", "--store", str(tmp_path)],
        ["download"],
        ["tune", "--data", str(tmp_path)],
        ["export", str(bundle), "--out", str(tmp_path / "fast")],
    ]
    command = [sys.executable, "-c", CORE_ONLY, json.dumps(refused), json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [code for code, _ in results[:2]] == [0, 0], results[:2]
    assert len(list((tmp_path / "masks").glob("*.tif"))) == 3
    for (code, text), extra in zip(results[2:], ("review", "download", "workflow", "openvino"), strict=True):
        assert code == 1, text
        assert f"cloudcover[{extra}]" in text
