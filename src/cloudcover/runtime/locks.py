"""One run at a time in a folder: the second names the holder, and what a killed run left locked is freed.

Snakemake's own lock is a list of files that stays behind after `kill -9`; it does not tell whose it is, and a person
has to remove it. A lock of the kernel (`flock`) ends with its process, so it tells a living run from a dead one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class FolderBusyError(Exception):
    """Another run works in the folder; the message names it."""


@contextmanager
def hold(path: Path) -> Iterator[bool]:
    """Holds the lock file `path` and writes into it who holds it.

    Yields:
        Whether a lock that is still found elsewhere in the folder must be a dead run's: not if the file system cannot
        lock, nor if the last holder ran on another machine, which this machine's kernel knows nothing of.

    Raises:
        FolderBusyError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderBusyError(f"another run works in {Path.cwd()}: {_described(file.read())}") from None
        except OSError as error:
            logger.warning("%s cannot be locked (%s): take care that no other run works here", path, error.strerror)
            yield False
            return
        same_machine = _parsed(file.read()).get("host", socket.gethostname()) == socket.gethostname()
        file.truncate(0)
        json.dump(_holder(), file)
        file.flush()
        yield same_machine


def guard_snakemake() -> None:
    """Makes every run of Snakemake in this process hold `.snakemake/run.lock` while it holds its own lock.

    Snakemake offers no hook before it locks, so this wraps its method. Dry runs and jobs on other machines, which take
    no lock of Snakemake's, take none of ours.
    """
    from snakemake.exceptions import WorkflowError
    from snakemake.persistence import PersistenceBase

    if hasattr(PersistenceBase.lock, "__wrapped_by_cloudcover__"):
        return
    lock = PersistenceBase.lock

    @contextmanager
    def guarded(self: Any) -> Iterator[None]:
        try:
            with hold(Path(self.path) / "run.lock") as others_are_dead:
                if others_are_dead and self.locked:
                    sys.stderr.write("freed the lock of a run that was killed\n")
                    self.cleanup_locks()
                    Path(self.path, "locks").mkdir(exist_ok=True)  # goes with them, and is not made again
                with lock(self):
                    yield
        except FolderBusyError as error:
            raise WorkflowError(f"{error}. Wait for its end, or end it.") from None

    guarded.__wrapped_by_cloudcover__ = lock  # type: ignore[attr-defined]
    PersistenceBase.lock = guarded


def _holder() -> dict[str, Any]:
    """This process, for the eyes of another run."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.name
    command = " ".join([name, *sys.argv[1:]])
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "command": command}


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:  # none, or its holder was killed while it wrote
        return {}
    return value if isinstance(value, dict) else {}


def _described(text: str) -> str:
    holder = _parsed(text)
    if not holder:
        return "it has only just begun"
    return "process {pid} on {host} since {started} ({command})".format_map(holder)
