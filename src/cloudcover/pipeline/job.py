"""Setup common to all scripts of the workflow: the rule's log, GPUs, thread count, typed parameters."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from cloudcover.config.params import Params, declared
from cloudcover.runtime import gpu_slots, slurm
from cloudcover.runtime.signals import end_cleanly

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def _ours_or_warning(record: logging.LogRecord) -> bool:
    """Let only warnings of libraries pass, which announce tips and versions at INFO."""
    return record.levelno >= logging.WARNING or record.name.startswith("cloudcover")


def start(snakemake: Any) -> Params:
    """Prepare a job and return its parameters.

    Messages go to the rule's log and to the terminal. An unhandled exception is logged with its traceback, and printed
    on the terminal as one line. A job that requests GPUs waits until they are free (`gpu_slots.take`). Call this
    function before torch is imported, because torch reads the thread count and the visible devices only once.

    If several processes train one model, each of them calls this function. The first opens the log and takes the GPUs
    for all; the others add their warnings and errors.

    Args:
        snakemake: Object that Snakemake passes to a script.

    Returns:
        The parameters that the rule declares, see `params.declared`.
    """
    end_cleanly()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(snakemake.threads)
    path = Path(snakemake.log[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    first = slurm.is_first()
    to_file, to_terminal = logging.FileHandler(path, mode="w" if first else "a"), logging.StreamHandler()
    to_file.setFormatter(logging.Formatter(FORMAT))
    to_terminal.setFormatter(logging.Formatter("%(message)s"))
    level = logging.INFO if first else logging.WARNING
    logging.basicConfig(level=level, handlers=[to_file, to_terminal], force=True)
    for handler in (to_file, to_terminal):
        handler.addFilter(_ours_or_warning)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        to_terminal.setLevel(logging.CRITICAL)
        logging.getLogger().error("failed", exc_info=(kind, error, trace))
        sys.stderr.write(f"{kind.__name__}: {error}\n(traceback: {path})\n")

    sys.excepthook = report
    params = declared(dict(snakemake.params.cfg))
    gpus = snakemake.resources.get("gpu", 0)
    if (nodes := snakemake.resources.get("nodes", 1)) > 1:
        slurm.spread(nodes, params.compute.devices, snakemake.threads)
    if gpus and first and slurm.tasks() == 1:
        gpu_slots.take(gpus)
    return params
