"""Which GPUs a job may use, so that jobs beside each other do not share one unaware.

Snakemake counts GPUs and does not tell a job which are its own. So a job takes a lock on each device that it uses, and
shows only these to CUDA. The system frees a lock when the process that holds it ends, however it ends.

Small networks leave a large GPU idle. `CLOUDCOVER_JOBS_PER_GPU=4` lets four jobs share each; it is a matter of the
machine and changes no result, so it is no parameter.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path

from cloudcover.runtime.locks import FolderBusyError, hold, until_exit

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARES = "CLOUDCOVER_JOBS_PER_GPU"
POLL_S = 1.0


class GpuError(RuntimeError):
    """A job asks for more GPUs than it may see."""


def visible() -> list[str]:
    """The GPUs that this process may use, by UUID, which is the same in every process and container of a machine.

    A scheduler or a user that has set `CUDA_VISIBLE_DEVICES` has the last word. Its numbers are looked up with
    `nvidia-smi`, in whose list they are positions; what it does not know is kept as it is.
    """
    found = _all()
    named = os.environ.get(VISIBLE)
    if named is None:
        return found
    names = [name.strip() for name in named.split(",") if name.strip()]
    return [found[int(name)] if name.isdigit() and int(name) < len(found) else name for name in names]


def take(number: int) -> list[str]:
    """Waits for `number` free GPUs and keeps them until this process ends.

    Only these are then visible to CUDA, in this process and in those that it starts. It must run before CUDA is
    initialised. Locks lie in a folder of the user and the machine, so several runs of Snakemake respect each other.

    Args:
        number: of GPUs, 1 or more.

    Returns:
        The names of the GPUs.

    Raises:
        GpuError: fewer are visible, or `CLOUDCOVER_JOBS_PER_GPU` is no number.
    """
    devices = visible()
    if number > len(devices):
        shown = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise GpuError(
            f"the job asks for {number} GPUs, but sees {len(devices)}{shown}: "
            "lower compute.devices, or set compute.device to cpu"
        )
    folder = Path(tempfile.gettempdir()) / f"cloudcover-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while not (taken := _try(folder, devices, number)):
        if not waiting:
            log.info("waits for a GPU: other jobs hold all but %d of %d", number - 1, len(devices))
        waiting = True
        time.sleep(POLL_S)
    os.environ[VISIBLE] = ",".join(taken)
    log.info("runs on GPU %s", ", ".join(taken))
    return taken


def _all() -> list[str]:
    """UUIDs of the machine's GPUs in the order of their numbers; none where there is no driver that works."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return [] if answer.returncode else answer.stdout.split()


def _shares() -> int:
    """Jobs that may share a GPU, 1 unless the environment says more."""
    value = os.environ.get(SHARES, "1")
    if not value.isdigit() or int(value) < 1:
        raise GpuError(f"{SHARES}={value}: must be a whole number, 1 or more")
    return int(value)


def _try(folder: Path, devices: Sequence[str], number: int) -> list[str]:
    """Lock `number` devices until this process ends, or none: a waiting job holds no lock, so jobs cannot deadlock."""
    taken: list[str] = []
    with ExitStack() as held:
        for share, device in product(range(_shares()), devices):
            if device in taken:
                continue
            try:
                held.enter_context(hold(folder / f"{device.replace('/', '_')}.{share}", f"a job uses GPU {device}"))
            except FolderBusyError:
                continue
            taken.append(device)
            if len(taken) == number:
                until_exit.push(held.pop_all())
                return taken
    return []
