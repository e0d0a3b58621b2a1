"""Fingerprints of the code behind a script: changing a function reruns exactly the stages that use its module.

The hash is of the syntax tree, so comments, docstrings and formatting do not affect it. Code under `if TYPE_CHECKING:`
never runs and is excluded. Names are relative to the package and to the script's folder, so the fingerprint does not
depend on where they are installed.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

INTERFACES = ("config/", "data/tables.py", "pipeline/")
"""Modules that only describe what is passed between stages. The values themselves are parameters and inputs of the
rules, so a new key or a better description makes no stage stale."""

TEMPLATES = (".j2", ".css")


def dependencies(script: Path) -> list[Path]:
    """List the script and all `cloudcover` modules that it imports, directly or indirectly, anywhere in the code.

    Templates and style sheets of a package belong to its modules. `INTERFACES` are excluded.

    Returns:
        Paths, sorted by `relative_name`.
    """
    found: set[Path] = set()
    waiting = [script.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return sorted(found, key=relative_name)


def code_fingerprint(script: Path) -> str:
    """Hash the syntax trees of `dependencies(script)`: SHA-256, first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in dependencies(script):
        digest.update(f"{relative_name(path)}\0".encode() + _digest(path))
    return digest.hexdigest()[:16]


def relative_name(path: Path) -> str:
    """Name a module by its place in the package, and a script by its file name."""
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name


@cache
def _digest(path: Path) -> bytes:
    """Hash a module's syntax tree, or a template as it is."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).digest()
    tokens: list[str] = []
    _collect(_tree(path), tokens)
    return hashlib.sha256("\n".join(tokens).encode()).digest()


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _collect(node: ast.AST, tokens: list[str]) -> None:
    """Append types, names and values of a tree in their order, without docstrings.

    `ast.dump` and `ast.unparse` write the same tree differently in different versions of Python.
    """
    tokens.append(type(node).__name__)
    for name, value in ast.iter_fields(node):
        if value is None or value == [] or name == "kind":
            continue
        tokens.append(name)
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, ast.AST):
                tokens.append(repr(item))
            elif not _never_runs(item):
                _collect(item, tokens)


def _never_runs(node: ast.AST) -> bool:
    """Return whether a statement is only for readers and type checkers: a docstring, or `if TYPE_CHECKING:`."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def _imported(path: Path) -> list[Path]:
    """List the `cloudcover` files that a file needs: its imports, and the templates in its folder."""
    if path.suffix != ".py":
        return []
    files = {file for name in _names(_tree(path)) for file in _files(name)}
    if PACKAGE in path.parents:
        files |= {file for file in path.parent.iterdir() if file.suffix in TEMPLATES}
    return sorted(file for file in files if file.exists() and not relative_name(file).startswith(INTERFACES))


def _names(tree: ast.Module) -> Iterator[str]:
    for node in _statements(tree.body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield statements at any depth, but not expressions: they hold no imports, and every Snakemake run waits."""
    for node in body:
        if _never_runs(node):
            continue
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            yield from _statements(getattr(node, field, ()))


def _files(name: str) -> Iterator[Path]:
    """Yield the file of a dotted name, and the `__init__.py` of each package above it, which Python also runs."""
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
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
