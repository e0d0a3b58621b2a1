"""Texts of messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice


def listed(names: Collection[object], most: int = 5) -> str:
    """Names with commas, at most so many of them: `a, b and 3 more`."""
    shown = ", ".join(map(str, islice(names, most)))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def plain(text: str) -> str:
    """A text of a person on one line: what cannot be printed, such as a line break, becomes a space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def named(what: str, lines: Sequence[str], most: int = 20) -> str:
    """A message with a line for each of many things, at most so many of them."""
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{what}:", *(f"  {line}" for line in lines[:most]), *more])
