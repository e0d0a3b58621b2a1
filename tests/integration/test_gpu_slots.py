"""Concurrent jobs get separate GPUs: fake devices, real processes, real Snakemake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from cloudcover.runtime import gpu_slots
from cloudcover.runtime.gpu_slots import GpuError
from harness.project import TINY, Project
from helpers.paths import ROOT, python_path

BIN = Path(sys.executable).parent
HOLD = """
import sys
from cloudcover.runtime import gpu_slots
print(*gpu_slots.take(int(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose `nvidia-smi` lists three GPUs, with a separate folder for locks."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\nGPU-c\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{BIN}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT / "src"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv(gpu_slots.VISIBLE, raising=False)
    return tmp_path


@pytest.fixture
def hold(machine):
    """Starts a process that holds GPUs: `hold(2)`; returns it and, with `wait`, the names of its GPUs."""
    processes = []

    def start(number: int, wait: bool = True):
        command = [sys.executable, "-c", HOLD, str(number)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process, set(process.stdout.readline().split()) if wait else None

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_processes_beside_each_other_never_share_a_gpu(hold):
    _, first = hold(1)
    _, second = hold(2)
    assert len(first) == 1
    assert len(second) == 2
    assert first | second == {"GPU-a", "GPU-b", "GPU-c"}


def test_a_job_waits_until_enough_gpus_are_free_and_a_kill_frees_them(hold):
    first, devices = hold(2)
    waiting, _ = hold(2, wait=False)
    _, third = hold(1)  # who waits for two holds none
    assert third == {"GPU-a", "GPU-b", "GPU-c"} - devices
    first.send_signal(signal.SIGKILL)
    assert set(waiting.stdout.readline().split()) == devices


def test_jobs_share_a_gpu_where_the_environment_says_so_and_idle_ones_are_taken_first(machine, monkeypatch, hold):
    monkeypatch.setenv(gpu_slots.VISIBLE, "0,1")
    monkeypatch.setenv(gpu_slots.SHARES, "2")
    assert [hold(1)[1] for _ in range(2)] == [{"GPU-a"}, {"GPU-b"}]
    assert hold(2)[1] == {"GPU-a", "GPU-b"}  # two shares of one device are not two GPUs
    full, _ = hold(1, wait=False)
    with pytest.raises(subprocess.TimeoutExpired):
        full.wait(timeout=2)
    monkeypatch.setenv(gpu_slots.SHARES, "0")
    with pytest.raises(GpuError, match="CLOUDCOVER_JOBS_PER_GPU=0: must be a whole number"):
        gpu_slots.take(1)


def test_devices_that_a_scheduler_has_chosen_are_respected(machine, monkeypatch, hold):
    monkeypatch.setenv(gpu_slots.VISIBLE, "1,2")
    assert gpu_slots.visible() == ["GPU-b", "GPU-c"]
    _, devices = hold(1)
    assert devices == {"GPU-b"}
    monkeypatch.setenv(gpu_slots.VISIBLE, "GPU-b,GPU-a")  # the same device by its other name
    _, devices = hold(1)
    assert devices == {"GPU-a"}


@pytest.mark.parametrize(("shown", "seen"), [("2", 1), ("", 0)])
def test_too_few_visible_gpus_are_an_error_that_says_what_to_change(machine, monkeypatch, shown, seen):
    monkeypatch.setenv(gpu_slots.VISIBLE, shown)
    with pytest.raises(GpuError, match=rf"requests 2 GPUs, but sees {seen} \(CUDA_VISIBLE_DEVICES={shown}\)"):
        gpu_slots.take(2)


def test_a_machine_without_a_working_driver_has_no_gpus(machine, monkeypatch):
    (machine / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    with pytest.raises(GpuError, match=r"requests 1 GPUs, but sees 0: lower compute\.devices, or set compute.device"):
        gpu_slots.take(1)


SNAKEFILE = """
rule all:
    input: expand("{kind}{number}.json", kind=["gpu", "cpu"], number=[1, 2, 3])

rule work:
    output: "{kind}{number}.json"
    log: "logs/{kind}{number}.log"
    resources: gpu=lambda wildcards: int(wildcards.kind == "gpu")
    params: cfg={"seed": 0}
    script: "work.py"
"""
SCRIPT = """
import json, os, time
from pathlib import Path
from cloudcover.pipeline.job import start

start(snakemake)
begin = time.time()
time.sleep(2)
Path(snakemake.output[0]).write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), begin, time.time()]))
"""


def snakemake(folder: Path, gpus: int) -> subprocess.Popen:
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "work.py").write_text(SCRIPT)
    command = ["snakemake", "--cores", "4", "--resources", f"gpu={gpus}", "--quiet", "all"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def jobs(folder: Path, run: subprocess.Popen, kind: str) -> list[tuple[str, float, float]]:
    """Read the device, start and end of each job."""
    printed = run.communicate(timeout=600)[0]
    assert run.returncode == 0, printed
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{kind}?.json"))]


def pairs_at_once(found):
    return [(a, b) for a, b in combinations(found, 2) if a[1] < b[2] and b[1] < a[2]]


def test_one_gpu_is_used_by_one_job_at_a_time_while_others_fill_the_cores(machine):
    folder = machine / "one"
    run = snakemake(folder, 1)
    on_gpu, on_cpu = jobs(folder, run, "gpu"), jobs(folder, run, "cpu")
    assert [device for device, _, _ in on_gpu] == ["GPU-a"] * 3
    assert not pairs_at_once(on_gpu)
    assert [device for device, _, _ in on_cpu] == [None] * 3
    assert pairs_at_once(on_cpu + on_gpu)
    assert "running on GPU GPU-a" in (folder / "logs" / "gpu1.log").read_text()


def test_two_runs_of_snakemake_share_the_gpus_of_a_machine(machine):
    folders = [machine / "first", machine / "second"]
    runs = [snakemake(folder, 3) for folder in folders]
    found = [job for folder, run in zip(folders, runs, strict=True) for job in jobs(folder, run, "gpu")]
    assert len(found) == 6
    assert {device for device, _, _ in found} <= {"GPU-a", "GPU-b", "GPU-c"}
    at_once = pairs_at_once(found)
    assert at_once
    assert all(a[0] != b[0] for a, b in at_once)


def test_training_asks_for_all_devices_of_a_model_and_other_networks_for_one(tmp_path):
    project = Project(tmp_path / "project", {**TINY, "compute": {"device": "cuda", "devices": 2}}, forks=True)
    printed = project.snakemake("--resources", "gpu=4", "--dry-run", "data/labels/round1/manifest.csv")
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", printed, re.MULTILINE)
    asked = {rule: int(found[1]) for rule, text in jobs if (found := re.search(r"\bgpu=(\d+)", text))}
    assert {rule: number for rule, number in asked.items() if number} == {"train": 2, "predict": 1}
