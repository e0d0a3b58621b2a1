"""The order of the rooms, as pyproject.toml has it, and the size of modules."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import grimp
import pytest
from conftest import ROOT
from importlinter.cli import lint_imports


def test_rooms_import_from_lower_rooms_only(capsys: pytest.CaptureFixture[str]) -> None:
    failed = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert not failed, capsys.readouterr().out


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
