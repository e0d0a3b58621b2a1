"""The documentation names files and classes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
LIBRARY = ROOT / "src/cloudcover"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_code_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"[\w./-]+/[\w-]+\.(?:py|smk)\b", page.read_text(encoding="utf-8"))
    folders = (ROOT, LIBRARY, page.parent)
    assert [name for name in named if not any((folder / name).is_file() for folder in folders)] == []


def test_names_of_the_glossary_are_in_their_files() -> None:
    named = re.findall(r"`([\w/]+\.py)`: `(\w+)`", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"))
    assert len(named) > 4
    wrong = [
        f"{file}: {name}" for file, name in named if f" {name}" not in (LIBRARY / file).read_text(encoding="utf-8")
    ]
    assert wrong == []


def test_every_row_of_the_page_on_faults_names_tests_that_exist() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/test_*.py"))
    rows = [
        line
        for line in (ROOT / "docs/robustness.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not re.fullmatch(r"\|[-|]+", line) and not line.endswith("| test |")
    ]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
        assert named, row
        assert [name for name in named if f"def {name}(" not in tests] == []
