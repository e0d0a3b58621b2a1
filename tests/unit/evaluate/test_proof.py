"""The proof: what wrong labels cost, and how much of the loss is recovered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloudcover.data import tables
from cloudcover.evaluate.gap import closed_gap, closed_share, gains, replicates
from cloudcover.evaluate.metrics import paired_bootstrap
from cloudcover.evaluate.proof import chain_folders, label_table, plot, plot_gains, read_counts, steps
from cloudcover.evaluate.replicates import Replicates
from cloudcover.runtime.files import write_json


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


RUNS = replicates(
    pd.concat([counts("baseline", 0.6), counts("round1", 0.7), counts("final", 0.8), counts("oracle", 0.85)])
)


def test_the_closed_share_is_the_gain_over_the_gap():
    table = closed_gap(RUNS).set_index("run")
    assert table.loc["baseline", ["gain", "closed_share"]].tolist() == [0, 0]
    assert table.loc["oracle", "closed_share"] == pytest.approx(1)
    assert table.loc["final", "closed_share"] == pytest.approx(0.8, abs=0.01)
    assert table.loc["final", "jaccard"] == pytest.approx(0.8, abs=0.001)
    assert (table["closed_share_low"] <= table["closed_share"] + 1e-12).all()
    assert (table["closed_share"] <= table["closed_share_high"] + 1e-12).all()


@pytest.mark.parametrize("oracle", [0.6, 0.5], ids=["no gap", "negative gap"])
def test_a_share_of_no_gap_is_not_determined(oracle):
    found = replicates(pd.concat([counts("baseline", 0.6), counts("final", 0.8), counts("oracle", oracle)]))
    assert closed_gap(found)["closed_share"].isna().all()
    figures = closed_share(found, "final")
    assert figures["gain"] == pytest.approx(0.2, abs=0.002)
    assert figures["gap"] == pytest.approx(oracle - 0.6, abs=0.002)
    assert "closed_share" not in figures


def test_gains_are_over_the_reference_that_is_asked_for():
    table = gains(RUNS, "final").set_index("run")
    assert table.loc["final", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert table.loc["oracle", "gain"] == pytest.approx(0.05, abs=0.002)
    assert table.loc["baseline", "gain_high"] < 0


def test_gains_are_drawn(tmp_path):
    plot_gains({"over the final model": gains(RUNS, "final")}, tmp_path / "gains.png")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_chains_are_known_by_their_set_and_training():
    paths = [f"work/proof/seed{a}/training{b}/reports/truth.json" for a, b in ((11, 0), (3, 2))]
    assert chain_folders(paths) == {
        (11, 0): Path("work/proof/seed11/training0"),
        (3, 2): Path("work/proof/seed3/training2"),
    }


def test_resamples_of_several_models_are_paired():
    a, b = counts("a", 0.6), counts("b", 0.9)
    b.loc[:5, "tp_pixels"] -= 50
    b.loc[:5, "fn_pixels"] += 50
    interval = paired_bootstrap(b, a, resamples=500, seed=3)
    found = Replicates.of({"a": a, "b": b}, 500, 3).estimate({"b": 1, "a": -1})
    assert found.model_dump() == pytest.approx(interval.model_dump())


def test_chains_of_several_sets_and_trainings_are_averaged_and_shown_one_by_one(tmp_path):
    folders = {(seed, training): tmp_path / f"{seed}{training}" for seed in (0, 1) for training in (0, 1)}
    for (seed, training), folder in folders.items():
        shares = {"baseline": 0.6, "round1": 0.7, "oracle": 0.9}
        runs = [counts(run, share - 0.1 * seed - 0.02 * training, seed) for run, share in shares.items()]
        tables.COUNTS.write(pd.concat(runs), folder / "reports/tables/truth_chips.csv")
        figures = {"accepted": 4, "jaccard": 0.9, "jaccard_given": 0.2, "replaced_share": 0.5, "union_pixels": 9}
        truth = {"labels": {"precision": 0.8, "recall": 0.9}, "rounds": {"round1": figures}}
        write_json(folder / "reports/truth.json", truth)
    found = replicates(read_counts(folders))
    np.testing.assert_allclose(found.chains["oracle"], [0.9, 0.88, 0.8, 0.78], atol=0.002)
    runs = closed_gap(found)
    assert runs.set_index("run").loc["oracle", "jaccard"] == pytest.approx(0.84, abs=0.002)
    rises = steps(found).set_index("run")
    assert rises["over"].to_dict() == {"round1": "baseline", "oracle": "round1"}
    assert rises["chains_above"].tolist() == rises["chains"].tolist() == [4, 4]
    assert rises.loc["oracle", "gain"] == pytest.approx(0.2, abs=0.002)
    labels = label_table(folders)
    assert labels[["set", "training", "round", "audit_recall", "replaced_share"]].to_numpy().tolist() == [
        [seed, training, "round1", 0.9, 0.5] for seed, training in folders
    ]
    plot(runs, found.chains, tmp_path / "proof.png")
    assert (tmp_path / "proof.png").read_bytes().startswith(b"\x89PNG")
