"""Generated pages of the site, and links that lead out of it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import click
from mkdocs.structure.files import File, Files

from cloudcover.cli import main

ROOT = Path(__file__).parents[1]
PAGES = {"config/README.md": "parameters.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""File of the project -> page of the site."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from elsewhere in the project, and the page of commands."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_links(text, PurePosixPath(source).parent)))
    files.append(File.generated(config, "commands.md", content=_commands()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to pages of the site; links to other files of the project become text."""
    generated = page.file.src_uri in {*PAGES.values(), "commands.md"}
    return markdown if generated else _links(markdown, PurePosixPath("docs"))


def _links(text: str, folder: PurePosixPath) -> str:
    """Translate the links of a file in `folder`, relative to the project."""

    def translate(link: re.Match[str]) -> str:
        words, path, anchor = link[1], link[2], link[3] or ""
        target = normpath(folder / path)
        if target in PAGES:
            return f"[{words}]({PAGES[target]}{anchor})"
        if target.startswith("docs/"):
            return f"[{words}]({target.removeprefix('docs/')}{anchor})"
        return words

    return LINK.sub(translate, text)


def _commands() -> str:
    """Write the help of every command."""
    context = click.Context(main, info_name="cloudcover", max_content_width=100)
    parts = ["# Commands", "What `cloudcover COMMAND --help` prints."]
    for name in sorted(main.commands):
        command = main.commands[name]
        below = sorted(command.commands) if isinstance(command, click.Group) else []
        parts += [f"## {name}", _help(command, context, name)]
        for inner in below:
            parts += [f"### {name} {inner}", _help(command.commands[inner], context, f"{name} {inner}")]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, parent: click.Context, name: str) -> str:
    text = command.get_help(click.Context(command, info_name=name, parent=parent, max_content_width=100))
    return f"```text\n{text}\n```"
