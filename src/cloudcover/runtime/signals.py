"""Clean termination on signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


def end_cleanly() -> None:
    """Let SIGTERM and SIGHUP end this process like an exception: temporary files are removed and locks released.

    Schedulers, `timeout` and a system shutdown send SIGTERM, and a closed terminal sends SIGHUP; either otherwise
    terminates Python at once. An ignored signal, such as SIGHUP under `nohup`, stays ignored. Only the main thread can
    install a handler; in other threads this function does nothing.
    """
    if current_thread() is main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _end)


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
