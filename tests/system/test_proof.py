"""The proof as Snakemake runs it: chains of one set, tables and a plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from cloudcover.config.params import load, validate
from cloudcover.runtime.files import read_json, sha256
from harness.project import ONE_ROUND, TINY, Project

FILES, WEIGHTS = "data/raw/files.csv", "models/baseline/fold0/model.safetensors"


def test_the_proof_runs_the_chain_for_each_training_and_ends_with_tables_and_a_plot(tmp_path):
    project = Project(tmp_path / "project", TINY, forks=True)
    preset = {**TINY, **ONE_ROUND, "evaluation": {"resamples": 100, "references": ["oracle"]}}
    (project.folder / "config/presets/proof.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    project.change("training", "steps", 1)  # a preset differs from the defaults, not from the user's params.yaml
    project.snakemake("-s", "workflow/proof.smk", "proof", "--config", "seeds=1", "first=2", "trainings=2")
    chains = [project.folder / f"work/proof/seed2/training{number}" for number in (0, 1)]
    assert load(chains[0] / "params.yaml") == validate(preset)
    hashes = {name: {sha256(chain / name) for chain in chains} for name in (FILES, WEIGHTS)}
    assert {name: len(found) for name, found in hashes.items()} == {FILES: 1, WEIGHTS: 2}  # one set, two trainings
    results = project.folder / "reports" / "proof"
    runs = pd.read_csv(results / "runs.csv").set_index("run")
    assert list(runs.index) == ["baseline", "round1", "oracle", "final/unet", "final"]
    truths = [read_json(chain / "reports/truth.json") for chain in chains]
    assert runs.loc["final", "jaccard"] == pytest.approx(np.mean([truth["final"]["jaccard"] for truth in truths]))
    shown = pd.read_csv(results / "chains.csv")
    assert shown["oracle"].tolist() == pytest.approx([truth["oracle"]["jaccard"] for truth in truths])
    assert pd.read_csv(results / "steps.csv")["chains"].tolist() == [2, 2, 2]
    assert pd.read_csv(results / "labels.csv")["round"].tolist() == ["round1", "round1"]
    assert (results / "proof.png").stat().st_size > 10_000
