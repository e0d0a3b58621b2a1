"""Worker processes that end with their parent."""

from __future__ import annotations

import os
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread


def exit_with_parent() -> None:
    """End this process as soon as its parent has ended, even by `kill -9`.

    Use it as the initializer of a `ProcessPoolExecutor`. Otherwise the workers of a killed stage would continue, in
    parallel to the next run.
    """
    if parent := parent_process():
        Thread(target=_end_after, args=[parent], daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
