"""Several processes that train one model: what they must know of each other.

Without a process group everything here is the identity.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from cloudcover.runtime.device import DeviceError
from cloudcover.runtime.slurm import tasks


def nodes() -> int:
    """Number of machines that train together: those of SLURM's tasks (`launch.spread`), else this one."""
    return int(os.environ["SLURM_STEP_NUM_NODES"]) if tasks() > 1 else 1


def environment() -> ClusterEnvironment:
    """How processes find each other: SLURM has started them all, or the first starts the others on its machine.

    Lightning would take any job of SLURM for the first kind, and wait for tasks that nobody has started.
    """
    return SLURMEnvironment(auto_requeue=False) if tasks() > 1 else LightningEnvironment()


def devices_per_node(devices: int, device: str) -> int:
    """The devices of a training that are on each machine.

    Args:
        devices: of the training, `compute.devices`.
        device: `cpu` or `cuda`.

    Raises:
        DeviceError: machines cannot have equally many, or this one has fewer.
    """
    if devices % nodes():
        raise DeviceError(f"compute.devices is {devices}, which {nodes()} nodes cannot share evenly")
    here = devices // nodes()
    if device == "cuda" and torch.cuda.device_count() < here:
        raise DeviceError(
            f"training wants {here} GPUs on this machine (compute.devices: {devices}), but the job has "
            f"{torch.cuda.device_count()}: run snakemake with --resources gpu={devices}, or lower compute.devices"
        )
    return here


def processes() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The micro-batches of all processes, so that a loss over the whole batch is the same as in one process.

    Each process takes the gradient of the loss of all. The gradient of its own logits arrives from every process, and
    the mean over processes, which distributed training takes, brings the sum back to the loss of the whole batch.

    Args:
        logits: N x 1 x H x W, of the same shape in each process.
        target: N x H x W.
        weight: N, or N x H x W.

    Returns:
        The three with N x processes rows.
    """
    if processes() == 1:
        return logits, target, weight
    with torch.no_grad():
        targets, weights = (torch.cat(all_gather(t)) for t in (target, weight))  # type: ignore[no-untyped-call]
    return torch.cat(all_gather(logits)), targets, weights  # type: ignore[no-untyped-call]


def total(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if processes() == 1:
        return value
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed
