"""Chip ids that a spreadsheet or a list of files has changed: `00120` became `120`, `12e4` `120000`, `ab` `AB.tif`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cloudcover.data.chips import stem_of


def core(chip_id: str) -> str:
    """What is left of an id: its value as a number, or its letters without case; without the suffix of a TIFF."""
    name = stem_of(chip_id) or chip_id
    try:
        return repr(float(name))
    except ValueError:
        return name.lower()


def changed_ids(ids: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Find ids that are not known, but differ from a known one only in their form.

    Returns:
        The changed id -> the known one.
    """
    originals = {core(chip_id): chip_id for chip_id in known}
    unknown = sorted(set(ids) - set(known))
    return {chip_id: originals[core(chip_id)] for chip_id in unknown if core(chip_id) in originals}
