"""Freed buffers are used again without page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from cloudcover.runtime.allocator import keep_buffers
if sys.argv[1] == "kept" and not keep_buffers():
    sys.exit(3)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    torch.ones(10_000_000)  # 40 MB, more than glibc keeps by itself
for _ in range(20):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def faults_of(way: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, timeout=120)
    if done.returncode == 3:
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kept_buffers_cause_no_page_faults():
    assert faults_of("kept") < faults_of("returned") / 10
