"""The documentation names files, classes and commands that exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

import cloudcover
from cloudcover.cli import main
from cloudcover.config.params import validate
from cloudcover.labels.reasons import REASONS
from helpers.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("[!.]*/README.md")])
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


def test_every_reason_of_the_audit_is_explained_as_on_the_review_page() -> None:
    page = (ROOT / "docs/review.md").read_text(encoding="utf-8")
    assert [name for name, words in REASONS.items() if f"| `{name}` | {words.text} |" not in page] == []


def test_every_row_of_the_page_on_faults_names_tests_that_exist() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
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


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of a page's command lines, in code blocks and in the text, without comments and variables."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    lines, fenced = re.findall(r"`([^`\n]+)`", text), False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line)
    for line in lines:
        try:
            words = shlex.split(re.split(r" {2,}#| \| | > |; | && | # ", line.strip())[0])
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        if len(words) > 1:
            yield words


def problem_of_cloudcover(words: list[str]) -> str:
    """Describe the fault of a `cloudcover` command line; empty if there is none."""
    command: click.Command = main
    for word in words[1:]:
        if word.startswith("-"):
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help", "-h", "--version"}:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group):
            if word.isupper() or word == "…":
                return ""
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            command = command.commands[word]
    return ""


def problem_of_make(words: list[str]) -> str:
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return "".join(word for word in words[1:] if "=" not in word and word not in targets)


def problem_of_python(words: list[str]) -> str:
    if not words[1].endswith(".py"):
        return ""
    shared = "".join(path.read_text(encoding="utf-8") for path in (ROOT / words[1]).parent.glob("*.py"))
    lost = [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in shared]
    return f"{words[1]} has no {lost}" if lost else ""


CHECKS = {"cloudcover": problem_of_cloudcover, "make": problem_of_make, "python": problem_of_python}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    lines = [words for words in command_lines(page) if words[0] in CHECKS]
    assert [problem for words in lines if (problem := CHECKS[words[0]](words))] == []


def test_commands_are_found_in_blocks_and_in_the_text(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `cloudcover nothing --now` or\n\n    A=1 cloudcover predict x --fast \\\n        --out y  # so\n\n"
        "```shell\ncloudcover score a b > c\nmake it\n```\n"
    )
    assert sorted(command_lines(page)) == [
        ["cloudcover", "nothing", "--now"],
        ["cloudcover", "predict", "x", "--fast", "--out", "y"],
        ["cloudcover", "score", "a", "b"],
        ["make", "it"],
    ]
    problems = [problem_of_cloudcover(words) for words in command_lines(page) if words[0] == "cloudcover"]
    assert problems == ["main has no command nothing", "predict has no option --fast", ""]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    found: list[str] = re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_parameters_in_the_blocks_of_a_page_are_accepted(page: Path) -> None:
    for block in blocks(page, "yaml"):
        values = yaml.safe_load(block)
        if "deps" not in values:  # of dvc.yaml
            validate(values, f"{page.name}: {block}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_blocks_of_a_page_uses_public_names(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block, page.name)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cloudcover"
        }
        assert used
        assert used <= set(dir(cloudcover))


def test_the_readme_is_short_and_its_links_lead_to_files() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 700
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_page_is_in_the_index_of_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    named = set(re.findall(r": ([\w/]+\.md)$", site, re.MULTILINE))
    assert pages - named == set()
    assert named - pages == {"commands.md", "parameters.md", "contributing.md", "changelog.md"}
