"""What can be tested of the Kubernetes profile without a cluster: Snakemake accepts it and plans the chain with it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.project import TINY, Project
from helpers.servers import Moto, moto

__all__ = ["moto"]


def test_snakemake_plans_the_chain_in_a_bucket_that_has_only_the_verdicts(moto: Moto, tmp_path: Path, monkeypatch):
    for name, value in {"ACCESS_KEY": "a", "SECRET_KEY": "b", "ENDPOINT_URL": moto.url}.items():
        monkeypatch.setenv(f"SNAKEMAKE_STORAGE_S3_{name}", value)
    project = Project(tmp_path / "project", {**TINY, "compute": {"device": "cuda"}})
    (tmp_path / "bucket" / "config").mkdir(parents=True)
    shutil.copy(project.folder / "config" / "verdicts.csv", tmp_path / "bucket" / "config")
    moto.upload("cloudcover", tmp_path / "bucket")
    printed = project.run("snakemake", "--workflow-profile", "workflow/profiles/kubernetes", "--dry-run")
    jobs = dict(re.findall(r"^rule (\w+):\n((?: +.*\n)+)", printed, re.MULTILINE))
    assert {
        "download",
        "pack",
        "evidence",
        "audit",
        "train",
        "pseudo_label",
        "evaluate",
        "bundle",
        "report_page",
    } <= jobs.keys()
    assert "input: s3://cloudcover/data/raw/files.csv (retrieve from storage)" in jobs["pack"]
    for resource in ("gpu=1", "gpu_manufacturer=nvidia", "scale=0", "mem_mb=16000", "runtime=480"):
        assert re.search(rf"\b{resource}\b", jobs["train"]), jobs["train"]
