"""dvc.yaml, which is written by hand, agrees with Snakemake's rules: the same files, parameters and code."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path, PurePath
from typing import Any

import pytest

from cloudcover.config.params import Params
from cloudcover.config.section import Section
from cloudcover.pipeline.paths import stage_name
from harness.project import Project
from helpers.paths import ROOT

# Deps of DVC are folders; what a rule reads in them may be less than what other stages write there.
GRAPH = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
    workflow = api.workflow(resource_settings=ResourceSettings(cores=1), config_settings=ConfigSettings(),
                            snakefile=Path("Snakefile").resolve())
    workflow.dag(DAGSettings(forceall=True))
    inner = workflow._workflow  # Snakemake has no public view of its jobs
    inner._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
    inner._build_dag()
    jobs = [{"rule": job.rule.name, "wildcards": dict(job.wildcards.items()), "inputs": [str(f) for f in job.input],
             "outputs": [str(f) for f in job.output], "cfg": dict(job.params.items()).get("cfg", {})}
            for job in inner.dag.jobs if job.output]
json.dump(jobs, open(sys.argv[1], "w"))
"""


def rule_stages(project: Project) -> dict[str, dict[str, set[str]]]:
    """Inputs, outputs and sections of the parameters of the rules' jobs, by the stage that stands for them."""
    (project.folder / "graph.py").write_text(GRAPH)
    project.run("python", "graph.py", "jobs.json")
    stages: dict[str, dict[str, set[str]]] = {}
    for job in json.loads((project.folder / "jobs.json").read_text()):
        name = stage_name(job["rule"], job["wildcards"].get("run", job["wildcards"].get("round")))
        stage = stages.setdefault(name, {"inputs": set(), "outputs": set(), "sections": set(), "rule": {job["rule"]}})
        stage["inputs"] |= set(job["inputs"])
        stage["outputs"] |= set(job["outputs"])
        stage["sections"] |= set(parts_of(job["cfg"]))
    return stages


def parts_of(cfg: dict[str, Any]) -> list[str]:
    """Names of whole sections, and of single keys of sections of which a rule does not declare all."""
    parts = []
    for name, value in cfg.items():
        section = Params.model_fields[name].annotation
        keys = set(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else None
        parts += [name] if keys is None or set(value) == keys else [f"{name}.{key}" for key in value]
    return parts


def dvc_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """Deps, outs, parameters and command of the stages of dvc.yaml, with its templates filled in."""
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        found = {}
        for stage in repo.index.stages:
            params = [dep for dep in stage.deps if type(dep).__name__ == "ParamsDependency"]
            keys = {Path(dep.fs_path).name: set(dep.params) for dep in params}
            found[stage.name] = {
                "deps": {os.path.relpath(dep.fs_path, folder) for dep in stage.deps if dep not in params},
                "outs": {os.path.relpath(out.fs_path, folder): out.persist for out in stage.outs},
                "sections": keys.get("params.yaml", set()),
                "code": keys.get("code.yaml", set()),
                "cmd": stage.cmd,
            }
        return found


def covers(path: str, file: str) -> bool:
    return path == file or PurePath(path) in PurePath(file).parents


@pytest.fixture(scope="module", params=["the defaults", "two rounds, two members, no oracle, soft targets"])
def both(request, tmp_path_factory):
    """The stages as the rules and as dvc.yaml declare them."""
    other = {
        "rounds": {"round1": "manifest.csv", "round2": "round1"},
        "folds": {"number": 3},
        "pseudo_labels": {"targets": "soft"},
        "final": {"labels": "round2", "members": {"unet": {}, "fpn-small": {"architecture": "fpn"}}},
        "evaluation": {"references": []},
    }
    values = {} if request.param == "the defaults" else other
    project = Project(tmp_path_factory.mktemp("graph") / "project", values, forks=True)
    project.init_dvc()
    shutil.copytree(ROOT / "data", project.folder / "data", dirs_exist_ok=True)
    return rule_stages(project), dvc_stages(project.folder)


def test_there_is_a_stage_for_every_rule_and_run(both):
    rules, stages = both
    assert stages.keys() - {"code"} == rules.keys()


def test_stages_have_the_outputs_of_their_rules(both):
    rules, stages = both
    for name, rule in rules.items():
        outs = stages[name]["outs"]
        assert all(outs.values()), f"{name}: DVC must not delete what Snakemake replaces (persist: true)"
        assert {file for file in rule["outputs"] if not any(covers(out, file) for out in outs)} == set(), name
        assert {out for out in outs if not any(covers(out, file) for file in rule["outputs"])} == set(), name


def test_stages_depend_on_the_inputs_of_their_rules(both):
    rules, stages = both
    for name, rule in rules.items():
        deps = stages[name]["deps"]
        assert {file for file in rule["inputs"] if not any(covers(dep, file) for dep in deps)} == set(), name
        assert {dep for dep in deps if not any(covers(dep, file) for file in rule["inputs"])} == set(), name


def test_stages_depend_on_the_parameters_and_the_code_of_their_rules(both):
    rules, stages = both
    for name, rule in rules.items():
        assert stages[name]["sections"] == rule["sections"], name
        script = next(iter(rule["rule"])).removesuffix("_final")
        assert stages[name]["code"] == {script}, name


def test_the_command_of_a_stage_asks_its_rule_for_its_outputs(both):
    rules, stages = both
    for name, rule in rules.items():
        program, file, verb, asked, *targets = stages[name]["cmd"].split()
        assert (program, file, verb, {asked}) == ("python", "workflow/dvc_stage.py", "run", rule["rule"])
        for target in targets:
            assert any(covers(target, output) for output in rule["outputs"]), (name, target)


def test_dvc_yaml_is_short_enough_to_read():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 250
