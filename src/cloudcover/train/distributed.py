"""Distributed training: how processes find each other, and what they exchange.

Without a process group, these functions have no effect.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Thread

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from cloudcover.runtime.device import DeviceError
from cloudcover.runtime.slurm import tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """The position of a process in a distributed training.

    Attributes:
        rank: Number of the process.
        local_rank: Number of the process on this machine, and of its GPU.
        size: Number of processes.
    """

    rank: int = 0
    local_rank: int = 0
    size: int = 1


def nodes() -> int:
    """Return the number of machines that train together: those of SLURM's tasks (`slurm.spread`), or 1."""
    return int(os.environ["SLURM_STEP_NUM_NODES"]) if tasks() > 1 else 1


def devices_per_node(devices: int, device: str) -> int:
    """Return the number of the training's devices on each machine.

    Args:
        devices: Number of devices of the training, `compute.devices`.
        device: `cpu` or `cuda`.

    Raises:
        DeviceError: The devices cannot be divided evenly between the machines, or this one has too few.
    """
    if devices % nodes():
        raise DeviceError(f"compute.devices is {devices}, which {nodes()} nodes cannot share evenly")
    here = devices // nodes()
    if device == "cuda" and torch.cuda.device_count() < here:
        raise DeviceError(
            f"training needs {here} GPUs on this machine (compute.devices: {devices}), but the job has "
            f"{torch.cuda.device_count()}: run snakemake with --resources gpu={devices}, or lower compute.devices"
        )
    return here


def connect(devices: int, device: str) -> Place:
    """Connect the processes of a training, and start them if necessary.

    The processes are tasks of SLURM (`slurm.spread`) or of `torchrun`. Otherwise this program is started again for each
    further device of this machine, with the variables of `torchrun`. The process group is kept for the next training of
    this process.

    Args:
        devices: Number of devices of the training, `compute.devices`.
        device: `cpu` or `cuda`.

    Raises:
        DeviceError: See `devices_per_node`; or the number of processes is not that of devices.
    """
    here = devices_per_node(devices, device)
    if devices == 1:
        return Place()
    if not dist.is_initialized():
        if tasks() > 1:
            _take_from_slurm()
        elif "RANK" not in os.environ:
            _start_others(here)
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    place = Place(dist.get_rank(), int(os.environ["LOCAL_RANK"]), dist.get_world_size())
    if place.size != devices:
        raise DeviceError(f"compute.devices is {devices}, but {place.size} processes have been started")
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    return place


def _take_from_slurm() -> None:
    """Set the variables of `torchrun` from those of a SLURM step."""
    first = re.sub(r"\[(\w+).*?\]", r"\1", os.environ["SLURM_STEP_NODELIST"]).split(",")[0]
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": first,
        "MASTER_PORT": str(15_000 + int(os.environ["SLURM_JOB_ID"]) % 10_000),
    }


def _start_others(number: int) -> None:
    """Start this program again for each further device of this machine, and exit if any of them fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in range(1, number):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = subprocess.Popen([sys.executable, *sys.argv], env=environment)
        Thread(target=_end_after_failure, args=[process, rank], daemon=True).start()
    os.environ |= common | {"RANK": "0", "LOCAL_RANK": "0"}


def _end_after_failure(process: subprocess.Popen[bytes], rank: int) -> None:
    """Exit if a process fails, because the others would wait for it forever."""
    if process.wait():
        log.error("process %d of the training has failed; see its error above", rank)
        os._exit(1)


def processes() -> int:
    """Return the number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the micro-batches of all processes, so that a loss over the whole batch is the same as in one process.

    Each process computes the gradient of the whole loss. The gradients of its own logits from all processes add up, and
    the mean over processes in distributed training scales the sum back to the loss of the whole batch.

    Args:
        logits: N x 1 x H x W, of the same shape in each process.
        target: N x H x W.
        weight: N, or N x H x W.

    Returns:
        All three with N x processes rows.
    """
    if processes() == 1:
        return logits, target, weight
    with torch.no_grad():
        targets, weights = (torch.cat(all_gather(t)) for t in (target, weight))  # type: ignore[no-untyped-call]
    return torch.cat(all_gather(logits)), targets, weights  # type: ignore[no-untyped-call]


def total(value: Tensor) -> Tensor:
    """Sum a value over all processes."""
    if processes() == 1:
        return value
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed


def share_buffers(buffers: Iterable[Tensor]) -> None:
    """Copy the buffers of the first process, such as the running statistics of batch norm, to all processes."""
    if processes() > 1:
        for buffer in buffers:
            dist.broadcast(buffer, 0)
