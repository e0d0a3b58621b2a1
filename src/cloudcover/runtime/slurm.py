"""A job on several machines: SLURM starts its script once per device on all of them."""

from __future__ import annotations

import os
import sys

KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_CONF")
"""What a step must know of its job. Everything else describes the step that this process is."""


def tasks() -> int:
    """Processes that `srun` has started beside each other, this one included; 1 elsewhere.

    `SLURM_NTASKS` will not do: it is also set where an allocation has room for several, and nobody has started them.
    """
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def is_first() -> bool:
    """Whether this is the first or only process of its job.

    The others of a training were started by the first (`LOCAL_RANK`) or by SLURM (`SLURM_PROCID`).
    """
    return all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "SLURM_PROCID"))


def spread(nodes: int, devices: int, threads: int) -> None:
    """Puts a training on several machines, if its job has them, by becoming `srun` of this same script.

    Returns at once outside SLURM, and in the processes that `srun` has started. The job's allocation must exist:
    Snakemake's SLURM plugin asks for it by `resources: nodes` and `gres`. A step has all GPUs of its job's nodes.

    Args:
        nodes: of the job, 2 or more.
        devices: of the training, on all nodes together.
        threads: of each process.
    """
    if tasks() > 1 or "SLURM_JOB_ID" not in os.environ:
        return
    # --overlap: this process keeps the cores and GPUs of its own step; without it the new step would wait for them
    options = [f"--nodes={nodes}", f"--ntasks-per-node={devices // nodes}", f"--cpus-per-task={threads}", "--overlap"]
    environment = {k: v for k, v in os.environ.items() if k in KEPT or not k.startswith(("SLURM_", "SRUN_"))}
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # SLURM gives each node its own
    os.execvpe("srun", ["srun", *options, sys.executable, *sys.argv], environment)
