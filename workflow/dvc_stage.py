"""The bridge between DVC and Snakemake: DVC decides whether a stage runs, Snakemake how.

python workflow/dvc_stage.py run RULE TARGET...   the cmd of a stage in dvc.yaml
python workflow/dvc_stage.py write                write dvc.yaml from Snakemake's graph
python workflow/dvc_stage.py check                tell how dvc.yaml and Snakemake's graph differ
python workflow/dvc_stage.py commit               after `snakemake`: record its results in dvc.lock
python workflow/dvc_stage.py adopt                after `dvc pull` or `dvc checkout`: tell Snakemake that all is current
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from graphlib import TopologicalSorter
from pathlib import Path, PurePath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]

# Folders that a job fills and lists in one manifest: DVC versions the folder, Snakemake declares the manifest.
FOLDERS = ("data/store", "data/truth", "data/labels/*", "data/oof/*", "data/oof/final/*", "data/predictions",
           "models/*/fold*", "models/final/*/fold*", "models/bundle")  # fmt: skip
KINDS = ("outs", "metrics", "plots")
METRICS = ("reports/metrics.json", "reports/truth.json")
PLOTS: dict[str, dict[str, Any]] = {
    "reports/learning_curves.csv": {"x": "epoch", "y": "validation_jaccard", "title": "Validation Jaccard"}
}
HEADER = (
    "# Written from the Snakemake graph by `make dvc.yaml`; a test fails when the two differ. Don't edit it by hand.\n"
)


def snakemake(*arguments: str) -> list[str]:
    """The command line of Snakemake in this environment."""
    return [sys.executable, "-m", "snakemake", *arguments]


def trusted(target: str) -> bool:
    """Whether Snakemake itself wrote the file as it is now.

    A file that came from `dvc pull` or `dvc checkout` has another time than Snakemake's record of it.
    """
    from snakemake.persistence.file import FilePersistence

    record = FilePersistence(nolock=True)._read_record(target)
    return bool(record and record.endtime and abs(record.endtime - Path(target).stat().st_mtime) < 1e-3)


def behind(rule: str, targets: Sequence[str]) -> list[str]:
    """Targets that are older than a file in a folder that their stage reads.

    DVC compares whole folders, Snakemake the manifests that stand for them. A manifest can stay the same when the masks
    or probabilities beside it change, and then Snakemake would find nothing to do.
    """
    found = yaml.safe_load(Path("dvc.yaml").read_text())["stages"].values()
    deps = [dep for stage in found if stage["cmd"] == command_of(rule, targets) for dep in stage["deps"]]
    files = [path for dep in deps if Path(dep).is_dir() for path in Path(dep).rglob("*") if path.is_file()]
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    return [target for target in targets if Path(target).exists() and Path(target).stat().st_mtime < newest]


def run(rule: str, targets: Sequence[str]) -> int:
    """Builds targets with one rule only; upstream files count as given, because DVC has checked them.

    Snakemake runs in this process. What it says of every run (shell, cores, log file) is left out, because DVC starts
    it once per stage. Warnings, errors and what the jobs tell stay.
    """
    from snakemake.cli import main as snakemake_main
    from snakemake.logging import logger

    foreign = [target for target in targets if Path(target).exists() and not trusted(target)]
    again = sorted({*foreign, *behind(rule, targets)})
    force = ["--forcerun", *again] if again else []
    sys.argv = ["snakemake", "--quiet", "rules", "host", "progress", *force, "--allowed-rules", rule, "--", *targets]
    logger.addFilter(lambda record: record.levelno > logging.INFO or hasattr(record, "event"))
    try:
        snakemake_main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def command_of(rule: str, targets: Sequence[str]) -> str:
    """The cmd of a stage."""
    return " ".join(["python workflow/dvc_stage.py run", rule, *targets])


def commit() -> int:
    """Records the results of `snakemake` in dvc.lock, only if Snakemake finds nothing left to do."""
    if rules := pending():
        sys.stderr.write(f"not committed, run `snakemake` first; still to do: {', '.join(rules)}\n")
        return 1
    return subprocess.run(["dvc", "commit", "--force", "--quiet"]).returncode


def pending() -> list[str]:
    """Rules that Snakemake would run now."""
    return sorted({job["rule"] for job in graph(everything=False)})


def adopt() -> int:
    """Marks the checked-out outputs as current, only if DVC says that they are."""
    status = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
    if status.returncode:
        sys.stderr.write(f"not adopted, `dvc status` failed: {status.stderr}\n")
        return 1
    if differences := reasons(json.loads(status.stdout or "{}")):
        sys.stderr.write("not adopted: these are not the results of the files here\n")
        sys.stderr.writelines(f"  {line}\n" for line in differences)
        return 1
    return subprocess.run(snakemake("--touch", "--forceall", "--keep-incomplete", "--quiet", "all")).returncode


def reasons(status: dict[str, list[Any]]) -> list[str]:
    """A line per difference that `dvc status --json` tells: `folds: params.yaml folds modified`."""
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


def graph(everything: bool = True) -> list[dict[str, Any]]:
    """The jobs of the Snakemake workflow: rule, wildcards, inputs, outputs, script, sections of the parameters.

    Args:
        everything: all jobs; False: those that would run now.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.cli import parse_size_in_bytes
    from snakemake.settings.enums import RerunTrigger
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow_api = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(),
            snakefile=Path("Snakefile").resolve(),
        )
        profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
        what_counts = DAGSettings(
            forceall=everything,
            max_checksum_file_size=parse_size_in_bytes(profile["max-checksum-file-size"]),
            rerun_triggers=RerunTrigger.parse_choices_set(profile["rerun-triggers"]),
        )
        workflow_api.dag(what_counts)
        inner = workflow_api._workflow
        inner._prepare_dag(forceall=everything, ignore_incomplete=True, lock_warn_only=True)
        inner._build_dag()
        jobs = inner.dag.jobs if everything else inner.dag.needrun_jobs()
        return [
            {
                "rule": job.rule.name,
                "wildcards": dict(job.wildcards.items()),
                "inputs": [str(file) for file in job.input],
                "outputs": [str(file) for file in job.output],
                "sections": list(dict(job.params.items()).get("cfg", {})),
            }
            for job in jobs
            if job.output
        ]


def stage_name(job: dict[str, Any]) -> str:
    """Jobs of one rule that differ only in the fold share a stage: `train-round1`."""
    parts = [str(value) for key, value in sorted(job["wildcards"].items()) if key != "fold"]
    words = [f"round{p}" if p.isdigit() else p.replace("/", "-") for p in parts]
    return "-".join([job["rule"], *words])


def versioned(path: str) -> str:
    """What DVC versions for an output: the folder that belongs to its job alone, or the file."""
    folder = PurePath(path).parent
    owned = any(len(folder.parts) == len(PurePath(p).parts) and folder.match(p) for p in FOLDERS)
    return folder.as_posix() if owned else path


def stages(jobs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml."""
    from cloudcover.pipeline.code_fingerprint import dependencies

    grouped: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        grouped.setdefault(stage_name(job), []).append(job)
    result = {}
    for name, members in sorted(grouped.items()):
        rule = members[0]["rule"]
        script = ROOT / "workflow" / "scripts" / f"{rule}.py"
        code = [path.relative_to(ROOT).as_posix() for path in dependencies(script)]
        inputs = {versioned(path) for job in members for path in job["inputs"]}
        outputs = sorted({versioned(path) for job in members for path in job["outputs"]})
        stage: dict[str, Any] = {
            "cmd": command_of(rule, sorted(job["outputs"][0] for job in members)),
            "deps": sorted(inputs) + code,
        }
        if members[0]["sections"]:
            stage["params"] = members[0]["sections"]
        kinds = {
            "metrics": [{path: {"cache": False, "persist": True}} for path in outputs if path in METRICS],
            "plots": [{path: {"persist": True, **PLOTS[path]}} for path in outputs if path in PLOTS],
            "outs": [{path: {"persist": True}} for path in outputs if path not in METRICS and path not in PLOTS],
        }
        result[name] = stage | {kind: entries for kind, entries in kinds.items() if entries}
    return in_order(result)


def in_order(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Stages in the order in which they run; ties by name."""
    makers = {
        path: name for name, stage in found.items() for kind in KINDS for out in stage.get(kind, []) for path in out
    }
    needs = {name: {makers[dep] for dep in stage["deps"] if dep in makers} for name, stage in found.items()}
    return {name: found[name] for name in TopologicalSorter(needs).static_order()}


def render() -> str:
    """The text of dvc.yaml."""
    return HEADER + yaml.safe_dump({"stages": stages(graph())}, sort_keys=False, width=120)


def check() -> int:
    """Names what dvc.yaml has otherwise than Snakemake's graph."""
    found = differences(yaml.safe_load(Path("dvc.yaml").read_text())["stages"], stages(graph()))
    sys.stderr.writelines(f"{line}\n" for line in found)
    if found:
        sys.stderr.write("`make dvc.yaml` writes it anew\n")
    return bool(found)


def differences(written: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> list[str]:
    """A line per stage, file or section of parameters that only one of two sets of stages has."""
    lines = []
    for name in sorted(written.keys() | wanted.keys()):
        if name not in written or name not in wanted:
            lines.append(f"{name}: stage is only in {'dvc.yaml' if name in written else 'the Snakemake graph'}")
            continue
        for key in sorted(written[name].keys() | wanted[name].keys()):
            old, new = (_entries(stage[name].get(key, [])) for stage in (written, wanted))
            lines += [f"{name}: {key}: {entry} is only in dvc.yaml" for entry in sorted(old - new)]
            lines += [f"{name}: {key}: {entry} is only in the Snakemake graph" for entry in sorted(new - old)]
    return lines


def _entries(value: str | list[Any]) -> set[str]:
    """A command, or the entries of a list: `models/bundle`, `reports/metrics.json (cache=False, persist=True)`."""
    if isinstance(value, str):
        return {value}
    named = [entry if isinstance(entry, dict) else {entry: {}} for entry in value]
    return {
        path + (f" ({', '.join(f'{k}={v}' for k, v in sorted(options.items()))})" if options else "")
        for entry in named
        for path, options in entry.items()
    }


def main(arguments: Sequence[str]) -> int:
    """Runs one of the verbs of the module's docstring."""
    match list(arguments):
        case ["run", rule, *targets] if targets:
            return run(rule, targets)
        case ["write"]:
            Path("dvc.yaml").write_text(render())
            return 0
        case ["check"]:
            return check()
        case ["commit"]:
            return commit()
        case ["adopt"]:
            return adopt()
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
