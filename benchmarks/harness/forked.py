"""Programs for the PATH that run in forks of a process with imported libraries: `python` and those of `NAMES`.

Imports are most of what a tiny chain costs. Tests whose subject is a whole run, a killed one or a cluster start real
processes instead.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
NAMES = ("snakemake", "dvc", "cloudcover")


@cache
def programs() -> Path:
    """Return the folder of the programs; their server starts on first use, and ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="forks-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    python, listener = folder / "python", folder / "socket"
    client = f'exec {sys.executable} -I -S {HERE / "fork_client.py"} {listener} {sys.executable} {python} "$@"'
    lines = {"python": client, **{name: f'exec {python} {BIN / name} "$@"' for name in NAMES}}
    for name, line in lines.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, HERE / "fork_server.py", listener], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return folder
