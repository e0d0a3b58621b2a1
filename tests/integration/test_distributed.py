"""One training by several processes, as the workflow starts them on one machine; on two: tests/system/test_slurm.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from cloudcover.data import tables
from cloudcover.runtime.device import DeviceError
from cloudcover.train import distributed
from harness.project import TINY, Project


def test_two_processes_train_under_snakemake_and_share_one_log(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    values = {**TINY, "labels": {"policy": "human"}, "compute": {"device": "cpu", "devices": 2}}
    project = Project(tmp_path / "project", values)
    project.snakemake("models/round1/fold0/model.safetensors")
    history = tables.HISTORY.read(project.folder / "reports/learning_curves/round1/fold0.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    log = (project.folder / "logs/train/round1/fold0.log").read_text()
    assert log.count("training round1 fold 0 with 2 processes on 1 nodes") == 1
    assert log.count("round1 fold 0: ") == 1
    assert [log.count(f"round1 fold 0 epoch {number}, step") for number in (1, 2, 3)] == [1, 1, 1]
    assert "distributed_backend=gloo" not in log


def test_machines_that_cannot_share_the_devices_evenly_are_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(DeviceError, match=r"compute\.devices is 3, which 2 nodes cannot share evenly"):
        distributed.devices_per_node(3, "cpu")


def test_fewer_gpus_than_the_training_wants_are_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"needs 2 GPUs on .* has 1: run snakemake with --resources gpu=2"):
        distributed.devices_per_node(2, "cuda")


@pytest.mark.parametrize(
    ("nodelist", "first"), [("gpu7", "gpu7"), ("gpu[007-009,12],cpu3", "gpu007"), ("a-1,b[1-2]", "a-1"), ("n[5]", "n5")]
)
def test_tasks_of_slurm_find_each_other_at_the_first_node(monkeypatch, nodelist, first):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "unset")
    step = {"PROCID": "3", "LOCALID": "1", "STEP_NUM_TASKS": "4", "STEP_NODELIST": nodelist, "JOB_ID": "1234567"}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    distributed._take_from_slurm()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [os.environ[name] for name in names] == ["3", "1", "4", first, "19567"]


FAILING = """
import os, sys, time
from cloudcover.train import distributed
if os.environ.get("RANK") == "1":
    sys.exit("no memory here")
distributed.connect(2, "cpu")
time.sleep(600)
"""


KILLED = """
import os, signal, sys
import torch
import torch.distributed as dist
from cloudcover.train import distributed
place = distributed.connect(2, "cpu")
if place.rank == int(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGKILL)
dist.all_reduce(torch.zeros(1))
print("went on")
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others(tmp_path, monkeypatch, rank):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    words = [sys.executable, program, str(rank)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)  # until both have ended
    assert done.returncode == (1 if rank else -signal.SIGKILL), done.stderr
    assert "went on" not in done.stdout


def test_a_process_that_fails_ends_the_others(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAILING)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "no memory here" in done.stderr
    assert "process 1 of the training has failed" in done.stderr
