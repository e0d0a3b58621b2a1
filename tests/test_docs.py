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
