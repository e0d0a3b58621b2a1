"""Which stages run again after which change, with both drivers: one table, which docs/staleness.md shows as well.

The chain is built once; most rows are asked for by dry runs, `snakemake -n` and `dvc repro --dry`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from cloudcover.config.params import Params, load, validate
from cloudcover.config.render import render
from cloudcover.config.runs import chain
from cloudcover.data import tables
from harness.project import STAGE_RUNS, Project
from helpers.layouts import BANDS, make_layout
from helpers.paths import ROOT

VALUES: dict[str, Any] = {
    "data": {"source": "local", "path": "source", "chip_size": 32, "chips_per_shard": 16},
    "folds": {"number": 2, "test_share": 0.3},
    "model": {"decoder_channels": [16, 16, 8, 8, 8]},
    "training": {"steps": 4, "batch_size": 3},
    "rounds": chain(1),
    "final": {"labels": "round1"},
    "pseudo_labels": {"pixel_confidence": 0.6, "chip_confidence": 0.5},
    "prediction": {"tta": "none", "judge_tta": "none", "compare_tta": []},
    "evaluation": {"resamples": 100, "references": []},
}

# A word of the table is the name of a stage of dvc.yaml, with * for any run or round, or one of these groups.
GROUPS = {
    "LEARNING": "train_baseline predict_baseline audit_baseline manifest ROUNDS FINAL",
    "ROUNDS": "train_round@* predict_round@* audit_round@* pseudo_label@*",
    "FINAL": "train_final@* predict_final@* learning_curves",
    "RESULTS": "calibrate predict_test evaluate evaluate_truth bundle predict_unlabelled report_page",
}

TABLE = {
    "nothing": "",
    "all files touched": "",
    "a comment in params.yaml": "",
    "params.yaml: seed": "download pack folds evidence LEARNING RESULTS",
    "params.yaml: rounds": "train_round@round2 predict_round@round2 audit_round@round2 pseudo_label@round2 "
    "learning_curves evaluate evaluate_truth bundle predict_unlabelled report_page",
    "params.yaml: data": "download pack folds evidence LEARNING RESULTS",
    "params.yaml: synthetic": "download pack folds evidence LEARNING RESULTS",
    "params.yaml: labels": "manifest ROUNDS FINAL RESULTS",
    "params.yaml: folds": "folds evidence LEARNING RESULTS",
    "params.yaml: input": "LEARNING RESULTS",
    "params.yaml: model": "LEARNING RESULTS",
    "params.yaml: training": "LEARNING RESULTS",
    "params.yaml: augmentation": "LEARNING RESULTS",
    "params.yaml: compute": "LEARNING RESULTS",
    "params.yaml: prediction.judge_tta": "predict_baseline audit_baseline manifest ROUNDS FINAL RESULTS",
    "params.yaml: prediction.compare_tta": "predict_final@* RESULTS",
    "params.yaml: pseudo_labels": "pseudo_label@* FINAL RESULTS",
    "params.yaml: final": "FINAL RESULTS",
    "params.yaml: calibration": "RESULTS",
    "params.yaml: evaluation": "RESULTS",
    "a comment in src/cloudcover/losses/lovasz.py": "",
    "a docstring in src/cloudcover/losses/lovasz.py": "",
    "workflow/scripts/folds.py": "folds evidence LEARNING RESULTS",
    "workflow/scripts/report_page.py": "report_page",
    "src/cloudcover/labels/trees.py": "evidence audit_baseline manifest ROUNDS FINAL RESULTS",
    "src/cloudcover/labels/score.py": "audit_baseline manifest ROUNDS FINAL RESULTS",
    "src/cloudcover/labels/manifest.py": "manifest ROUNDS FINAL RESULTS",
    "src/cloudcover/losses/lovasz.py": "LEARNING RESULTS",
    "src/cloudcover/pseudo_labels/label.py": "pseudo_label@* FINAL RESULTS",
    "src/cloudcover/predict/oof.py": "predict_baseline audit_baseline manifest ROUNDS FINAL RESULTS",
    "src/cloudcover/evaluate/truth.py": "evaluate_truth report_page",
    "src/cloudcover/cli/score.py": "",
    "a new verdict in config/verdicts.csv": "manifest ROUNDS FINAL RESULTS",
    "a new chip in the source": "download pack folds evidence LEARNING RESULTS",
    "a new unlabelled chip in the source": "download pack folds evidence LEARNING RESULTS",
    "a removed chip": "download pack folds evidence LEARNING RESULTS",
    "deleted: reports/learning_curves.csv": "learning_curves report_page",
    "deleted: data/folds.csv": "folds evidence LEARNING RESULTS",
    "deleted: models/final/unet/fold1/model.safetensors": "FINAL RESULTS",
}

# One value of each section of params.yaml, or of several keys of a section.
CHANGED_VALUES = {
    "seed": 1,
    "rounds": {"round2": "round1"},
    "data": {"max_quarantined": 0.1},
    "synthetic": {"chips": 99},
    "labels": {"max_suspicion": 0.7},
    "folds": {"coverage_bins": 4},
    "input": {"mean": [0.3, 0.3, 0.3, 0.3]},
    "model": {"decoder_channels": [16, 16, 8, 8, 4]},
    "training": {"learning_rate": 0.02},
    "augmentation": {"hflip": 0.4},
    "compute": {"prediction_batch": 16},
    "prediction.judge_tta": {"judge_tta": "vflip"},
    "prediction.compare_tta": {"compare_tta": ["vflip"]},
    "pseudo_labels": {"pixel_confidence": 0.7},
    "final": {"members": {"unet": {"architecture": "fpn"}}},
    "calibration": {"trials": 5},
    "evaluation": {"threshold": 0.4},
}

LOSS = "src/cloudcover/losses/lovasz.py"

Edits = dict[str, bytes | None]
"""New content of files; None: deleted."""


def stages(words: str, every: set[str]) -> set[str]:
    """The stages that a cell of the table means; each word must mean at least one."""
    patterns = words.split()
    while any(word in GROUPS for word in patterns):
        patterns = " ".join(GROUPS.get(word, word) for word in patterns).split()
    found = {pattern: {stage for stage in every if fnmatch(stage, pattern)} for pattern in patterns}
    assert all(found.values()), f"no such stage: {[pattern for pattern, names in found.items() if not names]}"
    return set().union(*found.values())


def edits(change: str, folder: Path) -> Edits:
    """What a row of the table does to the files of the project."""
    what, _, name = change.partition(": ")
    source = folder / "source"
    if change == "all files touched":
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for top in ("config", "data", "models", "reports", "source", "src", "workflow", "params.yaml")
            for path in ([folder / top] if (folder / top).is_file() else sorted((folder / top).rglob("*")))
            if path.is_file() and "__pycache__" not in path.parts
        }
    if what == "params.yaml":
        values = yaml.safe_load((folder / "params.yaml").read_text())
        new, name = CHANGED_VALUES[name], name.partition(".")[0]
        values[name] = {**values[name], **new} if isinstance(new, dict) else new
        return {"params.yaml": render(validate(values)).encode()}
    if what == "deleted":
        assert (folder / name).exists()
        return {name: None}
    if change in ("a new chip in the source", "a new unlabelled chip in the source"):
        split, old = ("test", "c025") if "unlabelled" in change else ("train", "c000")
        files = [f"{split}_features/{{}}/{band}.tif" for band in BANDS] + ["train_labels/{}.tif"] * (split == "train")
        table = (source / f"{split}_metadata.csv").read_text()
        table += re.search(f"^{old},.*$", table, re.MULTILINE).group().replace(old, "d000") + "\n"
        copies = {f"source/{file.format('d000')}": (source / file.format(old)).read_bytes() for file in files}
        return {**copies, f"source/{split}_metadata.csv": table.encode()}
    if change == "a removed chip":
        table = re.sub(r"^c000,.*\n", "", (source / "train_metadata.csv").read_text(), flags=re.MULTILINE)
        gone = [*(f"train_features/c000/{band}.tif" for band in BANDS), "train_labels/c000.tif"]
        return {**{f"source/{file}": None for file in gone}, "source/train_metadata.csv": table.encode()}
    appended = {
        "nothing": {},
        "a comment in params.yaml": {"params.yaml": "# a comment\n"},
        "a new verdict in config/verdicts.csv": {"config/verdicts.csv": "c003,bad,ana,,2026-01-01T00:00:00Z\n"},
        "a comment in src/cloudcover/losses/lovasz.py": {LOSS: "\n\n# a comment\n"},
        "a docstring in src/cloudcover/losses/lovasz.py": {LOSS: '\n"""Of the last name."""\n'},
    }.get(change, {change: "\nCHANGED = 1\n"})
    return {path: (folder / path).read_bytes() + text.encode() for path, text in appended.items()}


@contextmanager
def applied(changes: Edits, folder: Path) -> Iterator[None]:
    """Makes the edits, and afterwards restores content and times."""
    before = {}
    for path in map(folder.joinpath, changes):
        before[path] = (path.read_bytes(), path.stat()) if path.exists() else None
    try:
        for name, content in changes.items():
            path = folder / name
            if content is None:
                path.unlink()
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
        yield
    finally:
        for path, old in before.items():
            if old is None:
                path.unlink()
                continue
            path.write_bytes(old[0])
            os.utime(path, ns=(old[1].st_atime_ns, old[1].st_mtime_ns))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Project:
    """The whole chain on 26 tiny chips, run by Snakemake and committed to DVC and git."""
    project = Project(tmp_path_factory.mktemp("staleness") / "project", VALUES, forks=True)
    make_layout(project.folder / "source", chips=26, size=32, scenes=8, wrong=3)
    project.init_dvc()
    project.snakemake()
    project.run("python", "workflow/dvc_stage.py", "commit")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "results")
    return project


@pytest.fixture(scope="module")
def every_stage(built) -> Callable[[], set[str]]:
    """Lists the stages; DVC is asked once for each set of rounds and members, of which dvc.yaml makes its stages."""
    known: dict[str, set[str]] = {}

    def listed() -> set[str]:
        params = load(built.folder / "params.yaml")
        names = f"{list(params.rounds)} {list(params.final.members)}"
        if names not in known:
            known[names] = built.all_stages()
        return known[names]

    return listed


@pytest.fixture
def copy(built, tmp_path_factory) -> Iterator[Project]:
    """A copy for a test that runs stages, beside the original, so that it shares the remote."""
    folder = built.folder.with_name(tmp_path_factory.mktemp("copy").name)
    shutil.copytree(built.folder, folder, symlinks=True)
    yield Project.at(folder, forks=True)
    shutil.rmtree(folder)


def test_the_table_has_a_row_for_every_section_of_the_parameters():
    named = {row.partition(": ")[2].partition(".")[0] for row in TABLE if row.startswith("params.yaml")}
    assert named == set(Params.model_fields)


def test_the_docs_show_this_table():
    text = (ROOT / "docs/staleness.md").read_text()
    shown = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE))
    cells = {**GROUPS, **{row: words or "none" for row, words in TABLE.items()}}
    assert {row.replace("`", ""): words.replace("`", "") for row, words in shown.items()}.items() >= cells.items()


@pytest.mark.parametrize("row", TABLE)
def test_exactly_the_stages_of_the_table_run_again(built, every_stage, row):
    with applied(edits(row, built.folder), built.folder), ThreadPoolExecutor(2) as pool:
        by_snakemake, by_dvc = pool.submit(built.pending_stages), pool.submit(built.stale_stages)
        expected = stages(TABLE[row], every_stage())
        assert (by_snakemake.result(), by_dvc.result()) == (expected, expected)


COMMANDS = {
    "snakemake": ["snakemake", "--cores", "2", "--resources", "gpu=1", "--", "data/folds.csv"],
    "dvc": ["dvc", "repro", "folds"],
}


@contextmanager
def killed(project: Project, command: list[str], when: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a session of its own, from the moment `when` comes true; at the end all its processes are killed."""
    run = subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 900
        while not when():
            assert time.monotonic() < end, "the stage did not start"
            assert run.poll() is None, "the run ended"
            time.sleep(0.02)
        yield run
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@contextmanager
def held(project: Project, command: list[str], file: str, line: str) -> Iterator[subprocess.Popen[bytes]]:
    """A running stage, which waits at a line of a file that it runs."""
    path = project.folder / file
    text = path.read_text()
    indent = re.search(f"^( +){re.escape(line)}", text, re.MULTILINE).group(1)
    waits = 'Path("waits").touch()', 'while Path("hold").exists():', '    __import__("time").sleep(0.05)', line
    path.write_text(text.replace(line, f"\n{indent}".join(waits), 1))
    (project.folder / "hold").touch()
    with killed(project, command, (project.folder / "waits").exists) as run:
        yield run
    (project.folder / "hold").unlink()
    (project.folder / "waits").unlink()


@pytest.mark.parametrize("driver", COMMANDS)
def test_a_second_run_names_the_first_and_a_killed_one_leaves_nothing_to_mend(copy, driver):
    before = tables.FOLDS.read(copy.folder / "data/folds.csv")
    # It has written one of its two outputs.
    with held(copy, COMMANDS[driver], "workflow/scripts/folds.py", "write_text(snakemake.output.balance") as first:
        for command in COMMANDS.values():
            printed = copy.run(*command, check=False)
            holder = re.search(r"(?:another run works in .*: process |\(PID )(\d+)", printed)
            assert holder, printed
            assert os.getpgid(int(holder.group(1))) == first.pid
        assert copy.pending_stages(), "a dry run needs no lock"
    pd.testing.assert_frame_equal(tables.FOLDS.read(copy.folder / "data/folds.csv"), before)
    assert not (copy.folder / "reports/tables/folds.csv").exists()
    for stale in (copy.pending_stages(), copy.stale_stages()):
        assert stale == stages(TABLE["workflow/scripts/folds.py"], copy.all_stages())
    copy.run(*COMMANDS[driver])
    assert copy.pending_stages() == set(), "the same folds: nothing that follows is stale"
    copy.run("python", "workflow/dvc_stage.py", "commit")
    assert "up to date" in copy.run("dvc", "status")


@pytest.mark.parametrize("driver", COMMANDS)
def test_a_prediction_that_is_killed_while_it_is_written_leaves_no_half_file(copy, driver):
    out = copy.folder / "data/oof/baseline"
    before, recorded = (out / "none.npy").read_bytes(), files_in_lock(copy, "predict_baseline")
    command = {"snakemake": [*COMMANDS["snakemake"][:-1], "data/oof/baseline/index.csv"],
               "dvc": ["dvc", "repro", "predict_baseline"]}[driver]  # fmt: skip
    with held(copy, command, "src/cloudcover/predict/oof.py", "for array in arrays.values():"):
        pass
    assert not (out / "none.npy").exists(), "Snakemake removes what it makes again; a half array has no name yet"
    assert not (out / "index.csv").exists()
    assert list(out.glob(".none-*.part.npy")), "it was killed while it wrote"
    for stale in (copy.pending_stages(), copy.stale_stages()):
        assert stale == stages(TABLE["src/cloudcover/predict/oof.py"], copy.all_stages())
    copy.run(*command)
    assert (out / "none.npy").read_bytes() == before
    assert not list(out.glob(".none-*")), "the next run removes what the killed one has left"
    assert "predict_baseline" not in copy.pending_stages()
    assert files_in_lock(copy, "predict_baseline") == recorded, "DVC has taken up the half file"


def files_in_lock(project: Project, stage: str) -> list[int]:
    """How many files DVC has recorded in each folder that a stage makes."""
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    return [out["nfiles"] for out in lock["stages"][stage]["outs"] if "nfiles" in out]


def test_training_that_is_killed_goes_on_and_ends_alike_under_both_drivers(copy):
    copy.change("training", "steps", 600)
    weights = [copy.folder / f"models/baseline/fold{fold}/model.safetensors" for fold in (0, 1)]
    targets = [path.relative_to(copy.folder).as_posix() for path in weights]
    commands = {
        "snakemake": ["snakemake", "--cores", "2", "--resources", "gpu=1", "--allowed-rules", "train", "--", *targets],
        "dvc": ["dvc", "repro", "--single-item", "train_baseline"],
    }
    states = copy.folder / "work/train"
    results = []
    for command in commands.values():
        shutil.rmtree(states, ignore_errors=True)
        shutil.rmtree(copy.folder / "models/baseline")
        with killed(copy, command, lambda: any(path.stem >= "epoch-00002" for path in states.glob("*/epoch-*.sha256"))):
            pass
        assert not all(path.exists() for path in weights)
        copy.run(*command)
        logs = "".join(path.read_text() for path in (copy.folder / "logs/train/baseline").glob("*.log"))
        assert "resumes after epoch-" in logs
        results.append([path.read_bytes() for path in weights])
    assert results[0] == results[1]


@pytest.mark.parametrize("driver", ["snakemake", "dvc"])
def test_a_deleted_output_is_made_again(copy, driver):
    path = copy.folder / "reports/learning_curves.csv"
    before = path.read_bytes()
    path.unlink()
    printed = copy.snakemake() if driver == "snakemake" else copy.run("dvc", "repro")
    assert path.read_bytes() == before
    assert set(re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE)) <= {
        "learning_curves",
        "report_page",
        "all",
    }
    assert copy.pending_stages() == set()
    copy.run("python", "workflow/dvc_stage.py", "commit")
    assert "up to date" in copy.run("dvc", "status")


def test_dvc_stops_where_the_content_is_the_same_and_snakemake_agrees(copy):
    script = copy.folder / "workflow/scripts/manifest.py"
    script.write_text(script.read_text() + "\nCHANGED = 1\n")
    printed = copy.run("dvc", "repro")
    assert re.findall(STAGE_RUNS, printed, re.MULTILINE) == ["code", "manifest"]
    assert copy.pending_stages() == copy.stale_stages() == set()


def test_checkouts_that_change_only_times_make_nothing_stale(copy):
    copy.run("git", "checkout", "-qb", "other")
    copy.change("training", "learning_rate", 0.5)
    copy.run("git", "commit", "-qam", "another learning rate")
    copy.run("git", "checkout", "-q", "-")
    for path in ("data/folds.csv", "data/store/index.parquet", "models/round1/fold0/model.safetensors"):
        (copy.folder / path).unlink()
    copy.run("dvc", "checkout")
    assert copy.pending_stages() == copy.stale_stages() == set()


def test_make_pull_gives_a_clone_results_that_are_current_and_refuses_what_is_not_theirs(copy):
    copy.run("dvc", "push")
    clone = Project.at(copy.folder.with_name(f"{copy.folder.name}-clone"), forks=True)
    copy.run("git", "clone", "-q", ".", str(clone.folder))
    shutil.copy(ROOT / "Makefile", clone.folder)
    clone.run("make", "--assume-old=.venv/installed", "pull")
    assert "up to date" in clone.run("dvc", "status")
    assert clone.pending_stages() == set()
    clone.change("folds", "coverage_bins", 4)
    printed = clone.run("make", "--assume-old=.venv/installed", "pull", check=False)
    assert "not marked as current: these are not the results of the files here" in printed
    assert "folds: params.yaml folds modified" in printed
    assert clone.pending_stages() == stages(TABLE["params.yaml: folds"], clone.all_stages())
    shutil.rmtree(clone.folder)


def test_a_corrupted_object_of_the_cache_is_found_and_named(copy):
    weights = "models/final/unet/fold0/model.safetensors"
    assert "objects of the DVC cache are unchanged" in copy.run("cloudcover", "verify", "--dvc")
    digest = hashlib.md5((copy.folder / weights).read_bytes()).hexdigest()
    cached = copy.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    content = bytearray(cached.read_bytes())
    content[len(content) // 2] ^= 1
    cached.chmod(0o644)
    cached.write_bytes(content)
    cached.chmod(0o444)
    assert "up to date" in copy.run("dvc", "status"), "DVC does not read what it has stored"
    printed = copy.run("cloudcover", "verify", "--dvc", check=False)
    assert f"models/bundle/unet-fold0/model.safetensors, {weights}: object {cached} is corrupted" in printed
    assert "1 of" in printed
    cached.unlink()
    copy.run("dvc", "commit", "--force")
    assert "objects of the DVC cache are unchanged" in copy.run("cloudcover", "verify", "--dvc")


def test_an_experiment_can_be_run_shown_and_compared(copy):
    """As docs/dvc.md shows it: another learning rate, for the baseline alone."""
    ran = copy.run(
        *["dvc", "exp", "run", "--name", "faster", "--set-param", "training.learning_rate=0.02", "--single-item"],
        *["train_baseline", "predict_baseline", "learning_curves", "evaluate"],
    )
    assert re.findall(STAGE_RUNS, ran, re.MULTILINE) == [
        "train_baseline", "predict_baseline", "learning_curves", "evaluate",
    ]  # fmt: skip
    shown = pd.read_csv(StringIO(copy.run("dvc", "exp", "show", "--csv", "--hide-workspace")))
    run = shown[shown["Experiment"] == "faster"].iloc[0]
    assert float(run["training.learning_rate"]) == 0.02
    assert 0 <= float(run["baseline.jaccard"]) <= 1
    assert json.loads(copy.run("dvc", "params", "diff", "--json")) == {
        "params.yaml": {"training.learning_rate": {"old": 0.003, "new": 0.02, "diff": pytest.approx(0.017)}}
    }
    changed = json.loads(copy.run("dvc", "metrics", "diff", "--json"))["reports/metrics.json"]
    assert "baseline.jaccard" in changed
    assert "final.jaccard" not in changed
    copy.run("dvc", "plots", "diff", "--out", "plots")
    assert "learning_curves" in (copy.folder / "plots/index.html").read_text()
