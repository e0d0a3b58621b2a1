"""Allocation of GPUs to concurrent jobs.

Snakemake counts GPUs, but does not assign them. So a job locks each device that it uses, and makes only these visible
to CUDA. The system releases a lock when its process ends for any reason.

Small networks leave a large GPU idle. With `CLOUDCOVER_JOBS_PER_GPU=4`, four jobs share each GPU. This depends on the
machine and does not change results, so it is not a parameter.
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
    """A job that requests more GPUs than it can see."""


def visible() -> list[str]:
    """List the GPUs that this process may use, by UUID.

    A UUID is the same in every process and container of a machine. `CUDA_VISIBLE_DEVICES`, set by a scheduler or a
    user, takes precedence. Its numbers are positions in the list of `nvidia-smi`; entries that are not in the list are
    kept unchanged.
    """
    found = _all()
    named = os.environ.get(VISIBLE)
    if named is None:
        return found
    names = [name.strip() for name in named.split(",") if name.strip()]
    return [found[int(name)] if name.isdigit() and int(name) < len(found) else name for name in names]


def take(number: int) -> list[str]:
    """Wait for `number` free GPUs and hold them until this process ends.

    CUDA then sees only these, in this process and in its child processes. Call this function before CUDA is
    initialised. The locks are in a folder per user and machine, so that concurrent Snakemake runs respect each other.

    Args:
        number: Number of GPUs, 1 or more.

    Returns:
        The UUIDs of the GPUs.

    Raises:
        GpuError: Fewer GPUs are visible, or `CLOUDCOVER_JOBS_PER_GPU` is not a whole number.
    """
    devices = visible()
    if number > len(devices):
        shown = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise GpuError(
            f"the job requests {number} GPUs, but sees {len(devices)}{shown}: "
            "lower compute.devices, or set compute.device to cpu"
        )
    folder = Path(tempfile.gettempdir()) / f"cloudcover-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    waiting = False
    while not (taken := _try(folder, devices, number)):
        if not waiting:
            log.info("waiting for a GPU: other jobs hold all but %d of %d", number - 1, len(devices))
        waiting = True
        time.sleep(POLL_S)
    os.environ[VISIBLE] = ",".join(taken)
    log.info("running on GPU %s", ", ".join(taken))
    return taken


def _all() -> list[str]:
    """List the UUIDs of the machine's GPUs in numerical order; none without a working driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    return [] if answer.returncode else answer.stdout.split()


def _shares() -> int:
    """Return how many jobs may share a GPU: 1, unless the environment sets another number."""
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
