"""Texts of messages."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice


def listed(names: Collection[object], most: int = 5) -> str:
    """Names with commas, at most so many of them: `a, b and 3 more`."""
    shown = ", ".join(map(str, islice(names, most)))
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
