"""The workflow on a real SLURM cluster of two nodes on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from harness.project import ONE_ROUND, TINY, Project
from helpers.cluster import Cluster, run_cluster

VALUES = {
    **TINY,
    **ONE_ROUND,
    "training": {**TINY["training"], "steps": 8},
}
# The profile, for nodes of one core, looking at short jobs more often: 9, 28 and 57 s after they are sent.
PROFILE = ["--workflow-profile", "workflow/profiles/slurm", "--slurm-init-seconds-before-status-checks=9"]
ONE_CORE = [
    f"{rule}=1"
    for rule in (
        "download",
        "pack",
        "evidence",
        "audit",
        "train",
        "predict",
        "predict_final",
        "predict_test",
        "calibrate",
    )
]
ROUND1 = ["models/round1/fold0/model.safetensors", "--allowed-rules", "train", "--forcerun", "train"]
LOG = "logs/train/round1/fold0.log"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with run_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory) -> Iterator[Project]:
    """A tiny project; `nvidia-smi` is a program that names one GPU, by its node."""
    project = Project(tmp_path_factory.mktemp("slurm") / "project", VALUES)
    program = project.folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "GPU-of-$SLURMD_NODENAME"\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        yield project


def on_cluster(cluster: Cluster, project: Project, *arguments: str) -> list[str]:
    """The command line of Snakemake with the cluster's profile."""
    return [*cluster.inside(project.folder), "snakemake", *PROFILE, *arguments, "--set-threads", *ONE_CORE]


def jobs(cluster: Cluster) -> list[list[str]]:
    """Number, state and rule of every job that the cluster knows, the newest last."""
    lines = cluster.run("squeue", "--states=all", "--noheader", "--sort=i", "--format=%i %T %k").splitlines()
    return [line.split(maxsplit=2) for line in lines]


def cancel_in_epoch(epoch: int, cluster: Cluster, project: Project) -> str:
    """Cancels the newest job when it has finished `epoch` epochs, and returns its number."""
    end = time.monotonic() + 300
    while not any(path.stem >= f"epoch-{epoch - 1:05d}" for path in project.folder.glob("work/train/*/epoch-*.sha256")):
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.1)
    number, state, _ = jobs(cluster)[-1]
    assert state == "RUNNING"
    cluster.run("scancel", number)
    return number


def test_the_chain_runs_on_the_cluster_up_to_its_figures(cluster, project):
    project.run(*on_cluster(cluster, project, "reports/metrics.json"))
    metrics = json.loads((project.folder / "reports/metrics.json").read_text())
    assert {"baseline", "round1", "final"} <= metrics.keys()
    sent = [comment for _, state, comment in jobs(cluster) if state == "COMPLETED"]
    rules = {comment.split("_wildcards_")[0] for comment in sent}
    assert {"rule_download", "rule_evidence", "rule_audit", "rule_train", "rule_predict"} <= rules
    assert len(sent) == 19  # groups are one each: pack and folds
    log = (project.folder / LOG).read_text()
    assert "running on GPU GPU-of-n" in log
    assert "step 8/8" in log
    assert project.pending("reports/metrics.json") == set()


def test_training_that_the_scheduler_cancels_is_sent_again_and_goes_on(cluster, project):
    project.change("training", "steps", 120)
    environment = project.environment()
    command, cwd = on_cluster(cluster, project, *ROUND1), project.folder
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        number = cancel_in_epoch(4, cluster, project)
        printed = run.communicate(timeout=600)[0].decode()
    assert run.returncode == 0, printed[-3000:]
    assert f"SLURM-job '{number}' failed, SLURM status is: 'CANCELLED'" in printed
    log = (project.folder / LOG).read_text()
    assert "round1 fold 0 resumes after epoch-0000" in log
    assert "step 120/120" in log


def test_a_model_is_trained_by_two_nodes_together(cluster, project):
    project.change("training", "steps", 8)
    project.change("compute", "devices", 2)
    one_gpu_each = ["train:nodes=2", "train:gpu=0", "train:gres=gpu:1"]
    project.run(*on_cluster(cluster, project, *ROUND1, "--set-resources", *one_gpu_each))
    number, state, _ = jobs(cluster)[-1]
    assert state == "COMPLETED"
    assert "NumNodes=2" in cluster.run("scontrol", "show", "job", number)
    log = (project.folder / LOG).read_text()
    assert log.count("training round1 fold 0 with 2 processes on 2 nodes") == 1
    passes = re.findall(r"round1 fold 0 epoch (\d+), step", log)
    assert passes == [str(number) for number in range(1, len(passes) + 1)]  # one of the processes writes
    assert log.count("step 8/8") == 1
