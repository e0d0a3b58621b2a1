"""Helpers for messages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

NAMED = 10
"""Maximum number of names in a line of the log."""


def listed(names: Collection[object], most: int = 5) -> str:
    """Join at most `most` names with commas: `a, b and 3 more`."""
    shown = ", ".join(map(str, islice(names, most)))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def plain(text: str) -> str:
    """Put a person's text on one line by replacing unprintable characters, such as line breaks, with spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def named(what: str, lines: Sequence[str], most: int = 20) -> str:
    """Format a message with one line per item, for at most `most` of them."""
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"{what}:", *(f"  {line}" for line in lines[:most]), *more])
