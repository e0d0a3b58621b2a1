"""Fingerprints of code: what a stage imports, and nothing else."""

from pathlib import Path

import pytest
from conftest import ROOT

from cloudcover.pipeline.code_fingerprint import PACKAGE, code_fingerprint, dependencies

SCRIPTS = sorted((ROOT / "workflow" / "scripts").glob("*.py"))


def names(script):
    return {p.relative_to(PACKAGE).as_posix() for p in dependencies(script) if PACKAGE in p.parents}


def test_a_stage_depends_on_what_it_imports_at_any_depth():
    pack = names(ROOT / "workflow/scripts/pack.py")
    assert {"store/pack.py", "store/statistics.py", "chips.py", "files.py", "__init__.py"} <= pack
    assert not {name for name in pack if name.startswith(("train/", "models/build", "losses/", "report/"))}


def test_training_depends_on_losses_and_the_download_does_not():
    assert "losses/__init__.py" in names(ROOT / "workflow/scripts/train.py")
    assert not {n for n in names(ROOT / "workflow/scripts/download.py") if n.startswith(("losses", "train/"))}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_has_a_fingerprint(script):
    assert len(code_fingerprint(script)) == 16
    assert script.resolve() in dependencies(script)


def test_a_changed_script_changes_the_fingerprint(tmp_path: Path):
    script = tmp_path / "job.py"
    script.write_text("from cloudcover.runtime.files import sha256\n")
    before = code_fingerprint(script)
    assert PACKAGE / "files.py" in dependencies(script)
    script.write_text("from cloudcover.runtime.files import sha256  # changed\n")
    assert code_fingerprint(script) != before


def test_descriptions_of_parameters_and_tables_make_nothing_stale():
    for script in SCRIPTS:
        assert not {"params.py", "tables.py", "job.py"} & names(script)
