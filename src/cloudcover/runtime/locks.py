"""Locks for exclusive work; a second process gets an error that names the holder.

They are kernel locks (`flock`, through filelock), released when their process ends: a killed process leaves nothing to
clean up.
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

from cloudcover.runtime.files import full_disk_named

logger = logging.getLogger(__name__)

UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Error numbers of `flock` on a file system without locks."""

until_exit = ExitStack()
"""Locks entered here are held until this process ends."""
atexit.register(until_exit.close)


class FolderBusyError(OSError):
    """A lock held by another process, which the message names."""


@contextmanager
def hold(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `path`, without waiting for it, and record this process in it.

    A file system without locks causes a warning. So does a leftover record from another host, because not every shared
    file system propagates locks between hosts.

    Args:
        path: Lock file. It is not removed on release, because removing it could let two processes in.
        busy: Beginning of the error message, such as `another run works in FOLDER`.

    Raises:
        FolderBusyError: Another process holds the lock.
        OSError: The lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock would survive a killed process.
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=_sign)
    try:
        with full_disk_named(path, path):
            lock.acquire()
    except Timeout:
        holder = _described(path.read_bytes()) or "a process that is just starting or ending"
        raise FolderBusyError(f"{busy}: {holder}. Wait until it ends, or stop it.") from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        logger.warning(
            "%s cannot be locked (%s): make sure that no other process uses this folder", path, error.strerror
        )
    try:
        yield
    finally:
        if lock.is_locked:  # a forked child does not hold the lock
            with suppress(FileNotFoundError):
                os.truncate(path, 0)
            lock.release()


def _sign(file: int) -> None:
    """Replace the record of the previous holder in the locked file by one of this process."""
    last = os.pread(file, os.fstat(file).st_size, 0)
    if _parsed(last).get("host", socket.gethostname()) != socket.gethostname():
        logger.warning(
            "the previous holder did not end normally; make sure that it is no longer running: %s", _described(last)
        )
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
    """Describe the holder in words; return an empty text if the record names none."""
    holder = _parsed(record)
    return "process {pid} on {host} since {since} ({command})".format_map(holder) if holder else ""
