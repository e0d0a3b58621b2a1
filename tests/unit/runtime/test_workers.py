"""Worker processes of a stage that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from cloudcover.runtime.workers import exit_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn"), exit_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_with_their_parent_even_if_it_is_killed(tmp_path: Path):
    script = tmp_path / "stage.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as stage:
        worker = int(stage.stdout.readline())
        assert alive(worker)
        os.kill(stage.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while alive(worker):
        assert time.monotonic() < end, "the worker outlives its parent"
        time.sleep(0.05)
