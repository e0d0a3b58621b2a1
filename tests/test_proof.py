"""The proof: what wrong labels cost, and how much of it is won back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from project import ONE_ROUND, TINY, Project

from cloudcover.config.params import load, validate
from cloudcover.data import tables
from cloudcover.evaluate.gap import closed_gap, gains
from cloudcover.evaluate.metrics import paired_bootstrap, paired_resamples
from cloudcover.evaluate.proof import (
    by_seed,
    chain_folders,
    label_table,
    plot,
    plot_gains,
    read_counts,
)
from cloudcover.runtime.files import read_json, write_json


def counts(run: str, hit_share: float, seed: int = 0) -> pd.DataFrame:
    """Counts of 12 chips at 4 locations, of whose cloud a share is found."""
    rng = np.random.default_rng(seed)
    cloud = rng.integers(200, 800, 12)
    found = np.rint(cloud * hit_share).astype(int)
    ids = [f"c{i}" for i in range(12)]
    places = [f"p{i % 4}" for i in range(12)]
    return pd.DataFrame(
        {
            "chip_id": ids, "run": run, "tta": "none", "fold": 0, "location": places, "scene": places,
            "verdict": "clean", "tp_pixels": found, "fp_pixels": 0, "fn_pixels": cloud - found, "tn_pixels": 100,
        }
    )  # fmt: skip


RUNS = pd.concat([counts("baseline", 0.6), counts("round1", 0.7), counts("final", 0.8), counts("oracle", 0.85)])


def test_the_closed_share_is_the_gain_over_the_gap():
    table = closed_gap(RUNS).set_index("run")
    assert table.loc["baseline", ["gain", "closed_share"]].tolist() == [0, 0]
    assert table.loc["oracle", "closed_share"] == 1
    assert table.loc["final", "closed_share"] == pytest.approx(0.8, abs=0.01)
    assert table.loc["final", "jaccard"] == pytest.approx(0.8, abs=0.001)
    assert (table["closed_share_low"] <= table["closed_share"]).all()
    assert (table["closed_share"] <= table["closed_share_high"]).all()


def test_gains_are_over_the_reference_that_is_asked_for():
    table = gains(RUNS, "final").set_index("run")
    assert table.loc["final", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert table.loc["oracle", "gain"] == pytest.approx(0.05, abs=0.002)
    assert table.loc["baseline", "gain_high"] < 0


def test_gains_are_drawn(tmp_path):
    plot_gains({"over the final model": gains(RUNS, "final")}, tmp_path / "gains.png")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_chains_are_known_by_their_seed():
    paths = ["work/proof/seed11/reports/truth.json", "work/proof/seed3/reports/truth.json"]
    assert chain_folders(paths) == {11: Path("work/proof/seed11"), 3: Path("work/proof/seed3")}


def test_resamples_of_several_models_are_paired():
    a, b = counts("a", 0.6), counts("b", 0.9)
    b.loc[:5, "tp_pixels"] -= 50
    b.loc[:5, "fn_pixels"] += 50
    draws = paired_resamples({"a": a, "b": b}, resamples=500, seed=3)
    interval = paired_bootstrap(b, a, resamples=500, seed=3)
    difference = draws["b"] - draws["a"]
    assert difference[0] == interval.value
    np.testing.assert_allclose(np.percentile(difference[1:], [2.5, 97.5]), [interval.low, interval.high])


def test_sets_of_several_seeds_are_pooled_and_shown_one_by_one(tmp_path):
    folders = {seed: tmp_path / str(seed) for seed in (0, 1)}
    for seed, folder in folders.items():
        table = pd.concat(
            [counts(run, share - 0.1 * seed, seed) for run, share in (("baseline", 0.6), ("oracle", 0.9))]
        )
        tables.COUNTS.write(table, folder / "reports/tables/truth_chips.csv")
        figures = {"accepted": 4, "jaccard": 0.9, "jaccard_given": 0.2, "replaced_share": 0.5, "union_pixels": 9}
        truth = {"labels": {"precision": 0.8, "recall": 0.9}, "rounds": {"round1": figures}}
        write_json(folder / "reports/truth.json", truth)
    pooled = read_counts(folders)
    assert pooled["location"].nunique() == 8
    seeds = by_seed(pooled, [0, 1])
    np.testing.assert_allclose(seeds["oracle"], [0.9, 0.8], atol=0.002)
    runs = closed_gap(pooled)
    assert seeds["oracle"][1] < runs.set_index("run").loc["oracle", "jaccard"] < seeds["oracle"][0]
    labels = label_table(folders)
    assert labels[["seed", "round", "audit_recall", "replaced_share"]].to_numpy().tolist() == [
        [0, "round1", 0.9, 0.5],
        [1, "round1", 0.9, 0.5],
    ]
    plot(runs, seeds, tmp_path / "proof.png")
    assert (tmp_path / "proof.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_proof_runs_the_chain_for_each_seed_and_ends_with_tables_and_a_plot(tmp_path):
    project = Project(tmp_path / "project", TINY, forks=True)
    preset = {**TINY, **ONE_ROUND, "evaluation": {"resamples": 100, "references": ["oracle"]}}
    (project.folder / "config/presets/proof.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    project.change("training", "steps", 1)  # a preset differs from the defaults, not from the user's params.yaml
    project.snakemake("-s", "workflow/proof.smk", "proof", "--config", "seeds=1", "first=2")
    assert load(project.folder / "work/proof/seed2/params.yaml") == validate(preset)
    results = project.folder / "reports" / "proof"
    runs = pd.read_csv(results / "runs.csv").set_index("run")
    assert list(runs.index) == ["baseline", "round1", "oracle", "final/unet", "final"]
    assert runs.loc["oracle", "closed_share"] == 1
    truth = read_json(project.folder / "work/proof/seed2/reports/truth.json")
    assert runs.loc["final", "jaccard"] == pytest.approx(truth["final"]["jaccard"])
    assert runs.loc["final", "closed_share"] == pytest.approx(truth["closed_gap"]["closed_share"])
    assert pd.read_csv(results / "seeds.csv")["oracle"].tolist() == pytest.approx([truth["oracle"]["jaccard"]])
    assert pd.read_csv(results / "labels.csv")["round"].tolist() == ["round1"]
    assert (results / "proof.png").stat().st_size > 10_000
