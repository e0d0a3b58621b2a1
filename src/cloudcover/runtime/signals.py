"""How a process ends that is told to."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


def end_cleanly() -> None:
    """Let SIGTERM end this process like an exception, so that temporary files are removed and locks released.

    Schedulers, `timeout` and a machine that is shut down send SIGTERM, by which Python otherwise ends at once. Only the
    main thread can change that; elsewhere nothing happens.
    """
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, _end)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back in this thread; processes that are started meanwhile never see it.

    A terminal sends Ctrl-C to all processes of a command. Those that only work for another one leave it to that one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
