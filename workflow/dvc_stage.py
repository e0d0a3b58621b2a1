"""The bridge between DVC and Snakemake: DVC decides whether a stage runs, Snakemake how.

python workflow/dvc_stage.py run RULE TARGET...   the cmd of a stage in dvc.yaml
python workflow/dvc_stage.py code                 write workflow/code.yaml, the fingerprints of what the rules run
python workflow/dvc_stage.py commit               after `snakemake`: record its results in dvc.lock
python workflow/dvc_stage.py mark_current         after `dvc pull` or `dvc checkout`: mark results as current

A target is a file, or the folder of a run below models, which stands for the models of all its folds.
"""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CODE = Path("workflow/code.yaml")
CODE_HEADER = "# Written by the stage `code` of dvc.yaml: a fingerprint of what each rule runs. Do not edit by hand.\n"


def run(rule: str, targets: Sequence[str]) -> int:
    """Build targets with one rule only; upstream files are not rebuilt, because DVC has checked them.

    Snakemake runs in this process. Its general messages (shell, cores, log file) are suppressed, because DVC starts it
    once per stage. Warnings, errors and the messages of the jobs are printed.
    """
    from snakemake.cli import main as snakemake_main
    from snakemake.logging import logger

    if rule == "download" and (missing := unwatched_tables()):
        sys.stderr.write(
            "dvc.yaml does not name the tables of this set, so DVC would not see new chips: add to its stage download\n"
            f"    deps: [{', '.join(missing)}]\n"
        )
        return 1
    files = [file for target in targets for file in files_of(target)]
    foreign = [file for file in files if Path(file).exists() and not written_by_snakemake(file)]
    force = ["--forcerun", *foreign] if foreign else []
    sys.argv = ["snakemake", "--quiet", "rules", "host", "progress", *force, "--allowed-rules", rule, "--", *files]
    logger.addFilter(lambda record: record.levelno > logging.INFO or hasattr(record, "event"))
    try:
        snakemake_main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def unwatched_tables() -> list[str]:
    """List the tables of a local set that the stage `download` of dvc.yaml lacks among its deps."""
    from cloudcover.config.params import load
    from cloudcover.pipeline.paths import source_tables

    stage = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]["download"]
    return sorted(set(source_tables(load().data)) - set(stage.get("deps", [])))


def files_of(target: str) -> list[str]:
    """List the files that a target stands for: itself, or the weights of a run."""
    from cloudcover.pipeline.paths import weights

    if not target.startswith("models/") or Path(target).suffix:
        return [target]
    folds = yaml.safe_load(Path("params.yaml").read_text())["folds"]["number"]
    return weights(target.removeprefix("models/"), range(folds))


def written_by_snakemake(file: str) -> bool:
    """Return whether Snakemake itself wrote the file as it is now.

    A file that came from `dvc pull` or `dvc checkout` has another time than Snakemake's record of it.
    """
    from snakemake.io import IOFile
    from snakemake.persistence.file import FilePersistence

    record = FilePersistence(nolock=True).metadata(IOFile(file))
    return bool(record and record.endtime and abs(record.endtime - Path(file).stat().st_mtime) < 1e-3)


def code() -> int:
    """Write the fingerprints of the rules' scripts, if they have changed."""
    from cloudcover.pipeline.code_fingerprint import code_fingerprint

    found = {path.stem: code_fingerprint(path) for path in sorted(Path("workflow/scripts").glob("*.py"))}
    text = CODE_HEADER + yaml.safe_dump(found)
    if not CODE.exists() or CODE.read_text() != text:
        CODE.write_text(text)
    return 0


def commit() -> int:
    """Record the results of `snakemake` in dvc.lock, only if Snakemake finds nothing left to do."""
    if rules := pending():
        sys.stderr.write(f"not committed, run `snakemake` first; still to do: {', '.join(rules)}\n")
        return 1
    code()
    return subprocess.run(["dvc", "commit", "--force", "--quiet"]).returncode


def pending() -> list[str]:
    """Rules that Snakemake would run now."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--summary"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = csv.DictReader(printed[printed.index("output_file") :].splitlines(), delimiter="\t")
    return sorted({row["rule"] for row in rows if row["plan"] != "no update"})


def mark_current() -> int:
    """Mark the checked-out outputs as current, only if DVC says that they are.

    The stage `code` is run first: sources that differ in comments alone have made the same results.
    """
    subprocess.run(["dvc", "repro", "--quiet", "code"], check=True)
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
    if status.returncode:
        sys.stderr.write(f"not marked as current, `dvc status` failed: {status.stderr}\n")
        return 1
    if differences := reasons(json.loads(status.stdout or "{}")):
        sys.stderr.write("not marked as current: these are not the results of the files here\n")
        sys.stderr.writelines(f"  {line}\n" for line in differences)
        return 1
    command = [sys.executable, "-m", "snakemake", "--touch", "--forceall", "--keep-incomplete", "--quiet", "all"]
    return subprocess.run(command).returncode


def reasons(status: dict[str, list[Any]]) -> list[str]:
    """Write a line per difference that `dvc status --json` reports: `folds: params.yaml folds modified`."""
    lines = []
    for stage, changes in status.items():
        for change in changes:
            if isinstance(change, str):  # "changed command"
                lines.append(f"{stage}: {change}")
                continue
            for path, what in (item for part in change.values() for item in part.items()):
                words = [f"{key} {how}" for key, how in what.items()] if isinstance(what, dict) else [what]
                lines += [f"{stage}: {path} {word}" for word in words]
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run one of the verbs of the module's docstring."""
    match list(arguments):
        case ["run", rule, *targets] if targets:
            return run(rule, targets)
        case ["code"]:
            return code()
        case ["commit"]:
            return commit()
        case ["mark_current"]:
            return mark_current()
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
