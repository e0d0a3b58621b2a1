"""A user without the rights of root."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

NOBODY = 65534


def error_as_nobody(work: Callable[[], object]) -> str:
    """Type and message of a function's error, run without the rights of root; `no error` if there is none."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")  # nobody may not even read root's libraries
    context.Process(target=_send_error, args=(work, there)).start()
    assert here.poll(60)
    told: str = here.recv()
    return told


def _send_error(work: Callable[[], object], answer: Connection) -> None:
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        work()
        answer.send("no error")
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}")


@contextmanager
def folder_of_nobody(mode: int) -> Iterator[Path]:
    """A folder of that user; it is not below the folder of pytest, which is root's alone."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name, "out")
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        folder.chmod(mode)
        yield folder
