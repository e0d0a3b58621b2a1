"""Worker processes that do not outlive the process that started them."""

from __future__ import annotations

import os
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread


def exit_with_parent() -> None:
    """Ends this process as soon as its parent has ended, also by `kill -9`.

    The initializer of a `ProcessPoolExecutor`: otherwise the workers of a killed stage would stay, and work on what the
    next run does as well.
    """
    if parent := parent_process():
        Thread(target=_end_after, args=[parent], daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
