"""`snakemake` and `dvc`, run in forks of processes that have imported them: imports are half the time of a dry run.

A fork runs what the command runs, from its `main` on. Nothing of the project is imported before, so a fork takes the
library and the variables of the folder that it is given.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

IMPORTS = {
    "snakemake": "import docutils.core, pandas, pydantic, smart_open, snakemake.api, snakemake.executors.dryrun",
    "dvc": "import dvc.commands.repro, dvc.dependency, dvc.output, dvc.repo, dvc.stage.loader",
}
SERVER = """import json, os, sys
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if not child:
        printed = os.open(order["printed"], os.O_WRONLY)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(printed, 1), os.dup2(printed, 2)
        os.environ.clear(), os.environ.update(order["environment"])
        os.chdir(order["folder"])
        sys.path.insert(0, os.environ["PYTHONPATH"])
        sys.argv = order["command"]
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Runs one program; ends with its input, so with the tests."""

    def __init__(self, program: str) -> None:
        code = f"{IMPORTS[program]}\nfrom {program}.cli import main\n{SERVER}"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = Lock()

    def run(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """Runs a command line in a folder; returns its exit status and what it printed."""
        with self._lock, tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
            order = {"command": command, "folder": str(folder), "environment": environment, "printed": file.name}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return status, file.read()


@cache
def server(program: str) -> Server:
    """The one server of a program, started when it is first needed."""
    return Server(program)
