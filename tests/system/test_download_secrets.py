"""A signature appears in nothing that a run writes: logs, errors, tables, Snakemake's records, DVC's files."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from click.testing import CliRunner

from cloudcover.cli.data import download, verify
from helpers.layouts import make_layout
from helpers.paths import ROOT

SIGNATURE = "Dq/0aBLSI9t1nnx1sekyPaMgsqMiO9+BzjU8wDhfQ64="
ENCODED = "Dq%2F0aBLSI9t1nnx1sekyPaMgsqMiO9%2BBzjU8wDhfQ64%3D"


def pieces(url: str) -> list[bytes]:
    """All runs of ten characters of a signature, as it stands in the URL and decoded."""
    encoded = re.search(r"sig=([^&]+)", url)[1]
    texts = {encoded, unquote(encoded)}
    return [text[i : i + 10].encode() for text in texts for i in range(len(text) - 9)]


def holders(folder: Path, *outputs: bytes, url: str) -> list[str]:
    """Files and outputs that hold a piece of the signature."""
    found = [f"output {i}" for i, output in enumerate(outputs) if any(piece in output for piece in pieces(url))]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes() + path.name.encode()
            if any(piece in content for piece in pieces(url)):
                found.append(str(path))
    return found


def test_the_search_finds_a_signature_where_there_is_one(tmp_path):
    (tmp_path / "log").write_text(f"GET https://host/c?sv=1&sig={ENCODED}&sp=rl")
    assert holders(tmp_path, SIGNATURE.encode(), url=f"https://host/c?sig={ENCODED}") == [
        "output 0",
        str(tmp_path / "log"),
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the workflow, set to the azure source."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "workflow", folder / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "params.yaml").write_text(
        yaml.safe_dump({"data": {"source": "azure", "chip_size": 64}, "evaluation": {"references": []}})
    )
    return folder


def run(project: Path, url: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a command with the SAS in its environment, and watches the command lines of all processes meanwhile."""
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return subprocess.run(
            command, cwd=project, env=os.environ | {"CLOUDCOVER_SAS_URL": url}, capture_output=True, timeout=300
        )
    finally:
        done.set()
        watcher.join()
        assert not any(piece in line for line in set(seen) for piece in pieces(url))


def test_snakemake_and_dvc_write_no_signature(azurite, project, tmp_path):
    make_layout(tmp_path / "remote", chips=4, scenes=2, size=32)
    azurite.upload("secret", tmp_path / "remote")
    url = azurite.sas("secret")
    snakemake = f"{sys.executable} -m snakemake --cores 1 --show-failed-logs data/raw/files.csv"
    stage = {"cmd": snakemake, "params": ["data"], "outs": ["data/raw/files.csv"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"download": stage}}))
    outputs = []
    for arguments in (["init", "--no-scm", "--quiet"], ["repro", "--verbose"]):
        result = run(project, url, sys.executable, "-m", "dvc", *arguments)
        assert result.returncode == 0, result.stderr.decode()
        outputs += [result.stdout, result.stderr]
    assert (project / "dvc.lock").exists()
    assert (project / "data" / "raw" / "files.csv").exists()
    assert list((project / ".snakemake" / "metadata").rglob("*"))
    assert list((project / "logs").rglob("*.log"))
    assert holders(project, *outputs, url=url) == []


def test_a_refused_signature_appears_in_no_log_and_no_error(azurite, project, tmp_path):
    make_layout(tmp_path / "remote", chips=4, scenes=2, size=32)
    azurite.upload("expired", tmp_path / "remote")
    url = azurite.sas("expired", hours=-1)
    snakemake = (sys.executable, "-m", "snakemake", "--cores", "1", "--show-failed-logs", "data/raw/files.csv")
    result = run(project, url, *snakemake)
    assert result.returncode != 0
    assert b"renew it" in result.stdout + result.stderr
    assert b"403" in (project / "logs" / "download.log").read_bytes()
    assert holders(project, result.stdout, result.stderr, url=url) == []


def test_the_command_line_downloads_and_verifies_without_a_word_of_the_signature(
    azurite, tmp_path, monkeypatch, caplog
):
    make_layout(tmp_path / "remote", chips=4, scenes=2, size=32)
    azurite.upload("cli", tmp_path / "remote")
    url = azurite.sas("cli")
    (tmp_path / "sas.txt").write_text(url)
    monkeypatch.delenv("CLOUDCOVER_SAS_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "data" / "raw"
    options = ["--source", "azure", "--sas-file", "sas.txt", "--out", str(out), "--subset"]
    result = CliRunner().invoke(download, [*options, "1"], catch_exceptions=False)
    assert re.search(r"11 files, \d+\.\d MB in ", result.output)  # two chips, one of them labelled, two tables
    result = CliRunner().invoke(download, [*options, "1.0"], catch_exceptions=False)
    assert re.search(r"2\d files", result.output)
    result = CliRunner().invoke(verify, [str(out)])
    assert "files are unchanged" in result.output
    (out / "train_labels" / "c000.tif").unlink()
    result = CliRunner().invoke(verify, [str(out)])
    assert result.exit_code == 1
    assert "train_labels/c000.tif is missing" in result.output
    assert holders(tmp_path / "data", result.output.encode(), caplog.text.encode(), url=url) == []
