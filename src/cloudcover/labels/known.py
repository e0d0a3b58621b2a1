"""Ids of chips that people wrote, compared with the chips that there are."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from cloudcover.data.ids import changed_ids
from cloudcover.runtime.text import listed

log = logging.getLogger(__name__)


class UnknownChipsError(ValueError):
    """Ids name chips that do not exist; the message says which and what may have happened."""


def refuse_changed(ids: Iterable[str], known: Collection[str], origin: str) -> None:
    """Compare ids with those of the store; warn of unknown ones.

    Args:
        ids: as people wrote them.
        known: of the store.
        origin: what holds the ids, for messages.

    Raises:
        UnknownChipsError: ids are written in another form, or no id is known.
    """
    given, there = set(ids), set(known)
    unknown = sorted(given - there)
    if changed := changed_ids(unknown, there):
        pairs = listed([f"{new} (the store has {old})" for new, old in changed.items()])
        raise UnknownChipsError(
            f"{origin}: {len(changed)} ids are written in another form than in the store: {pairs}. Write them as they "
            "are there; spreadsheets keep them in columns that are formatted as text"
        )
    if unknown and len(unknown) == len(given):
        raise UnknownChipsError(
            f"{origin}: none of the {len(unknown)} verdicts names a chip of the store: {listed(unknown)}; they may "
            "be of another set"
        )
    if unknown:
        log.warning("%d verdicts name chips that the store does not hold; ignored: %s", len(unknown), listed(unknown))
