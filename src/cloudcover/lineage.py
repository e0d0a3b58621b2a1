"""Which modules of this library a script depends on, so that a changed function makes exactly its stages stale."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent

INTERFACES = frozenset({"params.py", "tables.py", "job.py", "lineage.py"})
"""Modules that only describe what passes between stages. The values themselves are parameters and inputs of the rules,
so a new key or a better description makes nothing stale."""

TEMPLATES = (".j2", ".css")


def dependencies(script: Path) -> list[Path]:
    """The script and all modules of `cloudcover` that it imports, directly or not, at any depth of the code; sorted.

    Templates and style sheets of a package belong to its modules. `INTERFACES` are left out.
    """
    found: set[Path] = set()
    waiting = [script.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return sorted(found)


def code_fingerprint(script: Path) -> str:
    """SHA-256 over the contents of `dependencies(script)`, first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in dependencies(script):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def _imported(path: Path) -> list[Path]:
    """Files of `cloudcover` that one file needs: what it imports, and the templates beside it."""
    if path.suffix != ".py":
        return []
    names = set(_names(ast.parse(path.read_text(encoding="utf-8"))))
    files = {file for name in names for file in _files(name)}
    if PACKAGE in path.parents:
        files |= {file for file in path.parent.iterdir() if file.suffix in TEMPLATES}
    return sorted(file for file in files if file.exists() and file.name not in INTERFACES)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Statements at any depth. Expressions hold no imports, and every run of Snakemake waits for this."""
    for node in body:
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            yield from _statements(getattr(node, field, ()))


def _files(name: str) -> Iterator[Path]:
    """The file of a dotted name and the `__init__.py` of each package above it, which Python runs too."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name or f"{parts[-1]}.py" in INTERFACES:
        return
    folder = PACKAGE
    yield folder / "__init__.py"
    for part in parts[1:]:
        if (folder / part).is_dir():
            folder /= part
            yield folder / "__init__.py"
        elif (folder / f"{part}.py").exists():
            yield folder / f"{part}.py"
            return
