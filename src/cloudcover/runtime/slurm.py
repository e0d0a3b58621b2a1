"""Multi-node jobs: SLURM starts the script once per device on all nodes."""

from __future__ import annotations

import os
import sys

KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_CONF")
"""Variables of the job that a step needs. All other SLURM variables describe the current step."""


def tasks() -> int:
    """Return the number of processes that `srun` started together, this one included; 1 outside `srun`.

    `SLURM_NTASKS` is unsuitable: it is also set in an allocation with room for several tasks that have not been
    started.
    """
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def is_first() -> bool:
    """Return whether this is the first or only process of its job.

    The other processes of a training were started by the first (`LOCAL_RANK`) or by SLURM (`SLURM_PROCID`).
    """
    return all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "SLURM_PROCID"))


def spread(nodes: int, devices: int, threads: int) -> None:
    """Spread a training over several nodes, if its job has them, by replacing this process with `srun` of its script.

    Returns at once outside SLURM, and in processes started by `srun`. The allocation must exist: Snakemake's SLURM
    plugin requests it from `resources: nodes` and `gres`. A step has all GPUs of its job's nodes.

    Args:
        nodes: Number of nodes of the job, 2 or more.
        devices: Number of devices of the training, on all nodes together.
        threads: Number of threads of each process.
    """
    if tasks() > 1 or "SLURM_JOB_ID" not in os.environ:
        return
    # --overlap: without it, the new step would wait for the cores and GPUs of this process
    options = [f"--nodes={nodes}", f"--ntasks-per-node={devices // nodes}", f"--cpus-per-task={threads}", "--overlap"]
    environment = {k: v for k, v in os.environ.items() if k in KEPT or not k.startswith(("SLURM_", "SRUN_"))}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # SLURM sets it for each node
    os.execvpe("srun", ["srun", *options, sys.executable, *sys.argv], environment)
