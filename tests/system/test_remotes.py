"""`dvc push` and `dvc pull` to a folder, to Azure (Azurite) and to S3 (moto), as docs/dvc.md shows them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.azurite import AZURITE_ACCOUNT, AZURITE_KEY
from harness.project import Project
from helpers.paths import ROOT
from helpers.servers import azurite, moto  # noqa: F401  (fixtures)

MAKE = """
from pathlib import Path
for number in range(3):
    path = Path("data", f"part{number}", "masks.npy")
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes([number]) * 10_000)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A repository with the project's own DVC settings and one stage, whose output is a folder."""
    project = Project.at(tmp_path / "project", forks=True)
    project.folder.mkdir()
    (project.folder / "src").symlink_to(ROOT / "src")
    (project.folder / "make.py").write_text(MAKE)
    shutil.copytree(ROOT / ".dvc", project.folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    project.run("git", "init", "-q")
    project.run("dvc", "stage", "add", "--run", "--name", "make", "--outs", "data", "python make.py")
    return project


def to_folder(project: Project, request: pytest.FixtureRequest) -> None:
    """The project's preconfigured remote: a folder next to it."""


def to_azure(project: Project, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("azurite")
    container = f"dvc-{uuid.uuid4().hex}"
    server.service().create_container(container)
    access = f"AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint={server.url}"
    project.run("dvc", "remote", "add", "--default", "azure", f"azure://{container}/cloudcover")
    project.run("dvc", "remote", "modify", "--local", "azure", "connection_string", access)


def to_s3(project: Project, request: pytest.FixtureRequest) -> None:
    import boto3

    server = request.getfixturevalue("moto")
    bucket = f"dvc-{uuid.uuid4().hex}"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **keys).create_bucket(Bucket=bucket)
    project.run("dvc", "remote", "add", "--default", "s3", f"s3://{bucket}/cloudcover")
    project.run("dvc", "remote", "modify", "s3", "endpointurl", server.url)
    project.run("dvc", "remote", "modify", "--local", "s3", "access_key_id", "a")
    project.run("dvc", "remote", "modify", "--local", "s3", "secret_access_key", "b")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def forget(project: Project) -> None:
    """Remove what a fresh clone lacks."""
    shutil.rmtree(project.folder / "data")
    shutil.rmtree(project.folder / ".dvc/cache")


@pytest.mark.parametrize("remote", [to_folder, to_azure, to_s3])
def test_what_was_pushed_can_be_pulled(project, request, remote: Callable[[Project, pytest.FixtureRequest], None]):
    remote(project, request)
    before = contents(project.folder / "data")
    assert "4 files pushed" in project.run("dvc", "push")
    assert "Everything is up to date" in project.run("dvc", "push")
    forget(project)
    project.run("dvc", "pull")
    assert contents(project.folder / "data") == before
    assert "up to date" in project.run("dvc", "status")
    assert "4 objects of the DVC cache are unchanged" in project.run("cloudcover", "verify", "--dvc")


def test_secrets_of_a_remote_stay_out_of_git(project, request):
    to_s3(project, request)
    assert "secret_access_key" in (project.folder / ".dvc/config.local").read_text()
    assert "secret_access_key" not in (project.folder / ".dvc/config").read_text()
    project.run("git", "add", "-A")
    assert "config.local" not in project.run("git", "ls-files")


def test_an_object_that_was_corrupted_in_the_remote_is_found_after_the_pull(project):
    project.run("dvc", "push")
    (victim,) = (p for p in (project.folder.parent / "cloudcover-storage").rglob("*")
                 if p.is_file() and p.read_bytes() == b"\2" * 10_000)  # fmt: skip
    victim.chmod(0o644)
    victim.write_bytes(b"\2" * 9_999 + b"\3")
    forget(project)
    project.run("dvc", "pull")
    printed = project.run("cloudcover", "verify", "--dvc", check=False)
    assert "data/part2/masks.npy: object" in printed
    assert "1 of 4 objects are corrupted" in printed


def test_verify_outside_of_a_repository_says_so(tmp_path):
    project = Project.at(tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    assert "not in a readable DVC repository" in project.run("cloudcover", "verify", "--dvc", check=False)
