"""Storage of human verdicts during a review: one writer per file, and a verdict counts once it is on disk."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pandas as pd

from cloudcover.data import tables
from cloudcover.runtime.files import atomic, replaceable
from cloudcover.runtime.locks import hold
from cloudcover.runtime.text import listed, plain

LONGEST_REASON = 500
"""Maximum length of a reviewer's note [characters]."""


class Verdict(NamedTuple):
    """A row of `tables.VERDICTS`."""

    chip_id: str
    verdict: str
    reviewer: str
    reason: str
    time: str


Seen = tuple[str, str] | None
"""Verdict and time of a chip as known to a page; None for a chip without a verdict."""


class ConflictError(ValueError):
    """Chips that were judged elsewhere in the meantime; nothing was changed.

    Attributes:
        chip_ids: Ids of those chips.
    """

    def __init__(self, chip_ids: list[str]) -> None:
        super().__init__(f"judged elsewhere in the meantime: {listed(chip_ids, 3)}")
        self.chip_ids = chip_ids


def utc_now() -> str:
    """Return the current time in its stored form: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def only_writer(path: Path) -> AbstractContextManager[None]:
    """Keep other reviews and imports away from a file of verdicts, whatever link they use.

    Raises:
        FolderBusyError: Another process writes the file.
        PermissionError: The file is read-only, which its replacement would ignore.
    """
    file = replaceable(path)
    return hold(file.with_name(f".{file.name}.lock"), f"another review is open on {path}")


class Verdicts:
    """The file of verdicts, locked until `close`; safe to use from several threads.

    Each change writes the whole file atomically before it returns. Rows written by others in the meantime, with an
    editor or by `git pull`, are read first and preserved.

    Args:
        path: CSV file (`tables.VERDICTS`); it need not exist, and a link to it stays a link.
        reviewer: Name of the reviewer.
        now: Function that returns the time of a verdict, ISO 8601.

    Raises:
        FolderBusyError: Another process reviews with this file.
        TableError: The file violates its schema.
    """

    def __init__(self, path: Path, reviewer: str, now: Callable[[], str] = utc_now) -> None:
        self.path, self.reviewer, self._now = path, plain(reviewer), now
        self._lock = ExitStack()
        self._lock.enter_context(only_writer(path))
        self._threads = threading.Lock()
        self._changes: list[dict[str, tuple[Verdict | None, Verdict | None]]] = []
        self._known: tuple[int, int, int] | None = None
        self._rows: dict[str, Verdict] = {}
        try:
            self._refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._lock.close()

    def rows(self) -> dict[str, Verdict]:
        """Return all verdicts of the file by chip, also for chips that are not in the store."""
        with self._threads:
            self._refresh()
            return dict(self._rows)

    def judge(self, chip_ids: Iterable[str], verdict: str, reason: str, seen: Mapping[str, Seen]) -> int:
        """Give chips one verdict, or remove theirs.

        Args:
            chip_ids: Ids of the chips.
            verdict: `bad`, `clean` or `unsure`, or an empty text to remove the verdict.
            reason: Note by the reviewer.
            seen: Verdict of each chip as known to the page. A chip whose verdict has changed since is a conflict,
                unless it already has exactly this verdict: then the page repeats a request whose response was lost.

        Returns:
            Number of the change, for `undo`.

        Raises:
            ConflictError: See `seen`.
            TableError: The verdict is invalid, or the file was damaged in the meantime.
        """
        reason = plain(reason)[:LONGEST_REASON]
        time = self._now()
        new = {c: Verdict(c, verdict, self.reviewer, reason, time) if verdict else None for c in chip_ids}
        _check(row for row in new.values() if row)
        with self._threads:
            self._refresh()
            old = {c: self._rows.get(c) for c in new}
            conflicts = [c for c in new if _seen(old[c]) != seen.get(c) and not _same(old[c], new[c])]
            if conflicts:
                raise ConflictError(conflicts)
            self._apply(new)
            self._changes.append({c: (old[c], new[c]) for c in new})
            return len(self._changes) - 1

    def undo(self, change: int) -> list[str]:
        """Restore the rows from before a change, with their own reviewers and times.

        Returns:
            Ids of the restored chips.

        Raises:
            KeyError: This process did not make this change, or has already undone it.
            ConflictError: A chip was judged again after the change.
        """
        with self._threads:
            if not 0 <= change < len(self._changes) or not self._changes[change]:
                raise KeyError(change)
            self._refresh()
            steps = self._changes[change]
            conflicts = [c for c, (_, after) in steps.items() if self._rows.get(c) != after]
            if conflicts:
                raise ConflictError(conflicts)
            self._apply({c: before for c, (before, _) in steps.items()})
            self._changes[change] = {}
            return list(steps)

    def _apply(self, new: Mapping[str, Verdict | None]) -> None:
        """Write first and update the memory afterwards, so that a failed write leaves both in the old state.

        The caller has checked the new rows; `Table.write` would check all rows again for every verdict.
        """
        rows = {c: row for c, row in (self._rows | dict(new)).items() if row}
        with atomic(self.path.resolve()) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Verdict._fields)
            writer.writerows(rows[c] for c in sorted(rows))
        self._rows, self._known = rows, self._state()

    def _refresh(self) -> None:
        """Read the file if it is not the version that this process wrote."""
        state = self._state()
        if state == self._known:
            return
        table = tables.VERDICTS.read(self.path) if state else tables.VERDICTS.empty()
        rows = (Verdict(*row) for row in table.itertuples(index=False, name=None))
        self._rows, self._known = {row.chip_id: row for row in rows}, state

    def _state(self) -> tuple[int, int, int] | None:
        """Return what distinguishes versions of the file; None without a file."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _seen(row: Verdict | None) -> Seen:
    return (row.verdict, row.time) if row else None


def _same(old: Verdict | None, new: Verdict | None) -> bool:
    return (old and old._replace(time="")) == (new and new._replace(time=""))


def _check(rows: Iterable[Verdict]) -> None:
    tables.VERDICTS.check(pd.DataFrame(list(rows), columns=list(Verdict._fields)), "verdict")
