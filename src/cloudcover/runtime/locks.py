"""The lock for work that one process may do at a time; a second process is told who holds it.

It is a lock of the kernel (`flock`, by filelock), which ends with its process: a killed one leaves nothing to mend.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What `flock` answers on a file system that cannot lock."""

until_exit = ExitStack()
"""Locks that are entered here are held until this process ends."""
atexit.register(until_exit.close)


class FolderBusyError(OSError):
    """Another process holds the lock; the message names it."""


@contextmanager
def hold(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path`, without waiting for it, and record this process in it.

    A file system that cannot lock gives a warning. So does the record of a process on another host that did not end
    by itself: not every shared file system shows one host the locks of another.

    Args:
        path: Lock file. It stays after the release, because removing it could let two processes in.
        busy: Start of the error message, such as `another run works in FOLDER`.

    Raises:
        FolderBusyError: Another process holds the lock.
        OSError: The lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock would outlive a killed process.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        lock.acquire()
    except Timeout:
        holder = _described(path.read_bytes()) or "a process that has just begun or is about to end"
        raise FolderBusyError(f"{busy}: {holder}. Wait for its end, or end it.") from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        logger.warning("%s cannot be locked (%s): make sure that no other process works here", path, error.strerror)
    try:
        yield
    finally:
        if lock.is_locked:  # a forked child holds nothing
            with suppress(FileNotFoundError):
                os.truncate(path, 0)
            lock.release()


def _sign(file: int) -> None:
    """Replace the record of the last holder in the locked file by one of this process."""
    last = os.pread(file, os.fstat(file).st_size, 0)
    if _parsed(last).get("host", socket.gethostname()) != socket.gethostname():
        logger.warning("the last holder did not end by itself, make sure that it has ended: %s", _described(last))
    program = Path(sys.argv[0])
    name = program.parent.name if program.stem == "__main__" else program.name
    record = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([name, *sys.argv[1:]]),
    }
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(record).encode(), 0)


def _parsed(record: bytes) -> dict[str, object]:
    try:
        value = json.loads(record)
    except ValueError:  # empty
        return {}
    return value if isinstance(value, dict) and value.keys() >= {"pid", "host", "since", "command"} else {}


def _described(record: bytes) -> str:
    """The holder in words; an empty text if the record names none."""
    holder = _parsed(record)
    return "process {pid} on {host} since {since} ({command})".format_map(holder) if holder else ""
