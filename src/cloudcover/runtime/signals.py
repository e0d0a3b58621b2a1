"""Clean termination on signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


def end_cleanly() -> None:
    """Let SIGTERM end this process like an exception, so that temporary files are removed and locks released.

    Schedulers, `timeout` and a system shutdown send SIGTERM, which otherwise terminates Python at once. Only the main
    thread can install a handler; in other threads this function does nothing.
    """
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, _end)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C in this thread; processes started in the block never receive it.

    A terminal sends Ctrl-C to all processes of a command. Worker processes leave the response to their parent.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
