"""Check of chip ids written by people against the existing chips."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from cloudcover.data.ids import changed_ids
from cloudcover.runtime.text import listed

log = logging.getLogger(__name__)


class UnknownChipsError(ValueError):
    """Ids of chips that do not exist; the message names them and the likely cause."""


def refuse_changed(ids: Iterable[str], known: Collection[str], origin: str) -> None:
    """Compare ids with those of the store, and warn about unknown ones.

    Args:
        ids: Ids written by people.
        known: Ids in the store.
        origin: Source of the ids, for messages.

    Raises:
        UnknownChipsError: Ids are written in another form, or no id is known.
    """
    given, there = set(ids), set(known)
    unknown = sorted(given - there)
    if changed := changed_ids(unknown, there):
        pairs = listed([f"{new} (the store has {old})" for new, old in changed.items()])
        raise UnknownChipsError(
            f"{origin}: {len(changed)} ids are written in another form than in the store: {pairs}. Write them as in "
            "the store; in a spreadsheet, format the column as text"
        )
    if unknown and len(unknown) == len(given):
        raise UnknownChipsError(
            f"{origin}: none of the {len(unknown)} verdicts names a chip of the store: {listed(unknown)}; they may "
            "belong to another set"
        )
    if unknown:
        log.warning("%d verdicts name chips that are not in the store; ignored: %s", len(unknown), listed(unknown))
