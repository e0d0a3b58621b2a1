"""Chip ids altered by a spreadsheet or a file list, such as `00120` to `120`, `12e4` to `120000`, `ab` to `AB.tif`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cloudcover.data.chips import stem_of


def core(chip_id: str) -> str:
    """Return the invariant part of an id: its numeric value, or its letters without case, without a TIFF suffix."""
    name = stem_of(chip_id) or chip_id
    try:
        return repr(float(name))
    except ValueError:
        return name.lower()


def changed_ids(ids: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Find unknown ids that differ from a known one only in their form.

    Returns:
        Altered id -> known id.
    """
    originals = {core(chip_id): chip_id for chip_id in known}
    unknown = sorted(set(ids) - set(known))
    return {chip_id: originals[core(chip_id)] for chip_id in unknown if core(chip_id) in originals}
