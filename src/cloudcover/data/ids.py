"""Chip ids that a spreadsheet has changed: `00120` became `120`, `12e4` became `120000`, `abc` became `ABC`."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def core(chip_id: str) -> str:
    """What a spreadsheet leaves of an id: its value as a number, or its letters without case."""
    try:
        return repr(float(chip_id))
    except ValueError:
        return chip_id.lower()


def changed_ids(ids: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Find ids that are not known, but differ from a known one only as a spreadsheet changes them.

    Returns:
        The changed id -> the known one.
    """
    originals = {core(chip_id): chip_id for chip_id in known}
    unknown = sorted(set(ids) - set(known))
    return {chip_id: originals[core(chip_id)] for chip_id in unknown if core(chip_id) in originals}
