"""The order of the rooms, as pyproject.toml has it, and the size of modules."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import grimp

from helpers.paths import ROOT


def test_rooms_import_from_lower_rooms_only() -> None:
    # A process of its own, because import-linter switches off the loggers that it finds.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rooms import downwards KEPT" in done.stdout


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("cloudcover", exclude_type_checking_imports=True, cache_dir=None)
    arrows = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(arrows) > 100
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the cycle


def test_modules_are_short() -> None:
    files: list[Path] = [path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: number for name, number in lines.items() if number > 400} == {}
    assert median(lines.values()) <= 150
