"""Fingerprints of code: what a stage imports, and nothing else."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudcover.pipeline.code_fingerprint import PACKAGE, code_fingerprint, dependencies
from helpers.paths import ROOT, python_path

SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))


def names(script):
    return {p.relative_to(PACKAGE).as_posix() for p in dependencies(script) if PACKAGE in p.parents}


def test_a_stage_depends_on_what_it_imports_at_any_depth():
    pack = names(ROOT / "workflow/scripts/pack.py")
    assert {"data/pack.py", "data/statistics.py", "data/chips.py", "runtime/files.py", "__init__.py"} <= pack
    assert not {name for name in pack if name.startswith(("train/", "models/build", "losses/", "report/"))}


def test_training_depends_on_losses_and_the_download_does_not():
    assert "losses/build.py" in names(ROOT / "workflow/scripts/train.py")
    assert not {n for n in names(ROOT / "workflow/scripts/download.py") if n.startswith(("losses", "train/"))}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_has_a_fingerprint(script):
    assert len(code_fingerprint(script)) == 16
    assert script.resolve() in dependencies(script)


SCRIPT = """from cloudcover.runtime.files import sha256

LEVELS = 3


def main(path):
    return f"{sha256(path)} {LEVELS}"
"""


def fingerprint_of(tmp_path: Path, text: str) -> str:
    """The fingerprint of a script in a folder of its own, for each text is read once in a process."""
    script = tmp_path / hashlib.sha256(text.encode()).hexdigest()[:8] / "job.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(text)
    assert PACKAGE / "runtime/files.py" in dependencies(script)
    return code_fingerprint(script)


@pytest.mark.parametrize("change", [
    ("LEVELS = 3", "LEVELS = 4"),
    ("def main(path):", "def main(path, more=None):"),
    ("sha256(path)", "sha256(str(path))"),
    ("} {", "}-{"),
    ("    return", "    if path:\n        return"),
    ("import sha256", "import read_json, sha256"),
])  # fmt: skip
def test_what_a_script_does_changes_its_fingerprint(tmp_path, change):
    assert fingerprint_of(tmp_path, SCRIPT.replace(*change)) != fingerprint_of(tmp_path, SCRIPT)


@pytest.mark.parametrize("change", [
    ("LEVELS = 3", "LEVELS = 3  # a comment"),
    ("LEVELS = 3", 'LEVELS = 3\n"""What the name before it stands for."""'),
    ("def main(path):", 'def main(path):\n    """A docstring."""'),
    ("from cloudcover", '"""Of the module."""\n\nfrom cloudcover'),
    ("def main(path):", "def main(\n    path,\n):"),
    ("LEVELS = 3", "\n\nLEVELS = (3)"),
])  # fmt: skip
def test_comments_docstrings_and_layout_do_not(tmp_path, change):
    assert fingerprint_of(tmp_path, SCRIPT.replace(*change)) == fingerprint_of(tmp_path, SCRIPT)


def test_the_fingerprint_is_the_same_wherever_the_library_is_installed(tmp_path):
    """A shared environment, a container: names sort otherwise there, and nothing may become stale."""
    place = tmp_path / "zz" / "site-packages"
    shutil.copytree(PACKAGE, place / "cloudcover", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "workflow/scripts", tmp_path / "AA" / "scripts")
    ask = (
        "import sys; from pathlib import Path; from cloudcover.pipeline.code_fingerprint import code_fingerprint; "
        "print({p.name: code_fingerprint(p) for p in sorted(Path(sys.argv[1]).glob('*.py'))})"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", ask, scripts], env={**os.environ, "PYTHONPATH": python_path(library)}, check=True,
            capture_output=True, text=True,
        ).stdout
        for library, scripts in ((place, tmp_path / "AA" / "scripts"), (PACKAGE.parent, ROOT / "workflow/scripts"))
    ]  # fmt: skip
    assert printed[0] == printed[1]


def test_descriptions_of_parameters_and_tables_make_nothing_stale():
    for script in SCRIPTS:
        assert not {"params.py", "tables.py", "job.py"} & names(script)
