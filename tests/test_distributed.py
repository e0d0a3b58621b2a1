"""One training by several processes, as the workflow starts them on one machine; on two: tests/test_slurm.py."""

from __future__ import annotations

import pytest
from project import TINY, Project

from cloudcover.data import tables
from cloudcover.runtime.device import DeviceError
from cloudcover.train import distributed


@pytest.mark.slow
def test_two_processes_train_under_snakemake_and_share_one_log(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    values = {**TINY, "labels": {"policy": "human"}, "compute": {"device": "cpu", "devices": 2}}
    project = Project(tmp_path / "project", values)
    project.snakemake("models/round1/fold0/model.safetensors")
    history = tables.HISTORY.read(project.folder / "reports/learning_curves/round1/fold0.csv")
    assert history["epoch"].tolist() == [0, 1, 2]
    log = (project.folder / "logs/train/round1/fold0.log").read_text()
    assert log.count("round1 fold 0 is trained by 2 processes on 1 nodes") == 1
    assert log.count("round1 fold 0: ") == 1
    assert [log.count(f"round1 fold 0 epoch {number}/3") for number in (1, 2, 3)] == [1, 1, 1]
    assert "distributed_backend=gloo" not in log


def test_machines_that_cannot_share_the_devices_evenly_are_an_error(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(DeviceError, match=r"compute\.devices is 3, which 2 nodes cannot share evenly"):
        distributed.devices_per_node(3, "cpu")


def test_fewer_gpus_than_the_training_wants_are_an_error(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"wants 2 GPUs on .* has 1: run snakemake with --resources gpu=2"):
        distributed.devices_per_node(2, "cuda")


@pytest.mark.parametrize(
    ("started", "kind"), [(None, "LightningEnvironment"), ("1", "LightningEnvironment"), ("2", "SLURMEnvironment")]
)
def test_slurm_is_asked_only_where_it_has_started_the_processes(monkeypatch, started, kind):
    monkeypatch.setenv("SLURM_NTASKS", "2")  # room for two
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    if started:
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", started)
    assert type(distributed.environment()).__name__ == kind
