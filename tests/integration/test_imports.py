"""The order of the rooms, as pyproject.toml has it, the size of modules, and what tests and benchmarks import."""

from __future__ import annotations

import ast
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


def test_what_reads_files_or_judges_labels_needs_no_torch() -> None:
    modules = ["cloudcover.predict.files", "cloudcover.labels.evidence", "cloudcover.labels.audit"]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name), print(name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *modules], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{name} False" for name in modules]


def test_modules_are_short() -> None:
    files: list[Path] = [path for path in (ROOT / "src").rglob("*.py") if path.name != "__init__.py"]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: number for name, number in lines.items() if number > 400} == {}
    assert median(lines.values()) <= 150


def imported(path: Path) -> set[str]:
    """Names of the packages and modules at the top that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_benchmarks_import_nothing_from_the_tests_and_test_files_nothing_from_each_other() -> None:
    benchmarks, tests = (ROOT.glob(f"{folder}/**/*.py") for folder in ("benchmarks", "tests"))
    assert [path for path in benchmarks if imported(path) & {"helpers", "tests", "conftest"}] == []
    found = [path for path in tests if any(name.startswith(("test_", "conftest")) for name in imported(path))]
    assert found == []


def test_unit_tests_are_in_the_folders_of_their_rooms() -> None:
    folders = {path.parent.name for path in (ROOT / "tests/unit").glob("*/test_*.py")}
    rooms = {path.name for path in (ROOT / "src/cloudcover").iterdir() if path.is_dir()}
    assert folders - rooms == {"benchmarks"}
