"""Comparison of models: pairs, bands of cloud cover, test-time augmentation, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from cloudcover.cli import main
from cloudcover.config.params import validate
from cloudcover.data import tables
from cloudcover.evaluate.compare import STATISTICS, by_coverage, by_tta, choose_models, pairs
from cloudcover.evaluate.metrics import jaccard, paired_bootstrap

EVALUATION = validate({"evaluation": {"resamples": 200}}).evaluation


def counts_of(run: str, tta: str = "vflip", error: float = 0.1, chips: int = 40, seed: int = 0) -> pd.DataFrame:
    """Counts of chips of 1,000 pixels in eight locations; equal seeds have equal labels."""
    rng = np.random.default_rng(seed)
    cloud = rng.integers(0, 1001, chips)
    rate = np.clip(error + 0.02 * rng.standard_normal(chips), 0, 1)
    fn, fp = (cloud * rate).astype(int), ((1000 - cloud) * rate).astype(int)
    place = np.arange(chips) % 8
    return pd.DataFrame(
        {
            "chip_id": [f"c{i:02d}" for i in range(chips)], "run": run, "tta": tta, "fold": place % 2,
            "location": [f"place{i}" for i in place], "scene": [f"place{i}@1" for i in place], "verdict": "clean",
            "tp_pixels": cloud - fn, "fp_pixels": fp, "fn_pixels": fn, "tn_pixels": 1000 - cloud - fp,
        }
    )  # fmt: skip


@pytest.fixture
def counts() -> pd.DataFrame:
    runs = {"baseline": 0.2, "round1": 0.12, "final/unet": 0.1, "final": 0.1}
    parts = [counts_of(run, error=error) for run, error in runs.items()]
    return pd.concat([*parts, counts_of("final", "none", 0.11)], ignore_index=True)


def test_each_pair_is_compared_as_by_the_paired_bootstrap(counts):
    models = choose_models(counts, [], "vflip")
    assert list(models) == ["baseline", "round1", "final"]  # the only member of the ensemble is the final model
    table = pairs(models, 200, 0).set_index(["model", "other"])
    assert set(table.index) == {("round1", "baseline"), ("final", "baseline"), ("final", "round1")}
    for (model, other), row in table.iterrows():
        expected = paired_bootstrap(models[model], models[other], "location", 200, 0)
        columns = expected.columns("difference")
        assert row[list(columns)].to_dict() == pytest.approx(columns)
        assert row["figure"] == pytest.approx(jaccard(models[model]))
        assert row["models_differ"]
    same = pairs({"a": models["final"], "b": models["final"]}, 200, 0, STATISTICS["location-mean"]).iloc[0]
    assert same["difference"] == 0
    assert not same["models_differ"]


def test_all_members_of_a_real_ensemble_are_compared(counts):
    members = pd.concat([counts, counts_of("final/fpn")])
    assert {"final/fpn", "final/unet", "final"} <= set(choose_models(members, [], "vflip"))


def test_bands_of_cloud_cover_hold_every_chip_once_and_have_the_jaccard_of_their_sums(counts):
    table = by_coverage(counts[counts["tta"] == "vflip"], EVALUATION, 0)
    final = table[table["run"] == "final"]
    assert final["chips"].sum() == 40
    assert final["coverage"].tolist() == ["0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1"]
    part = counts_of("final")
    share = (part["tp_pixels"] + part["fn_pixels"]) / 1000
    assert final["jaccard"].iloc[0] == pytest.approx(jaccard(part[share < 0.2]))
    assert (final["jaccard_low"] <= final["jaccard"]).all()
    assert (final["jaccard"] <= final["jaccard_high"]).all()


def test_policies_are_compared_with_none_and_take_the_time_of_all_members(counts, tmp_path: Path):
    for name, seconds in (("a", 2.0), ("b", 4.0)):
        taken = pd.DataFrame({"tta": ["none", "vflip"], "chips": 40, "seconds": [seconds, 2 * seconds]})
        (tmp_path / name).mkdir()
        tables.SECONDS.write(taken, tmp_path / name / "seconds.csv")
    folders = [tmp_path / "a", tmp_path / "b"]
    final = counts[counts["run"] == "final"]
    table = by_tta(final, ["none", "vflip"], folders, EVALUATION, 0).set_index("tta")
    assert table["ms_per_chip"].to_dict() == pytest.approx({"none": 150, "vflip": 300})
    assert table.loc["vflip", "gain"] == pytest.approx(table.loc["vflip", "jaccard"] - table.loc["none", "jaccard"])
    assert table.loc["vflip", "gain_low"] <= table.loc["vflip", "gain"] <= table.loc["vflip", "gain_high"]
    assert table.loc["none", "gain"] == 0
    assert by_tta(final, ["vflip"], folders, EVALUATION, 0)["gain"].isna().all()


def test_the_command_prints_differences_and_names_what_there_is(counts, tmp_path: Path):
    path = tmp_path / "chips.csv"
    tables.COUNTS.write(counts, path)

    def call(*arguments: str) -> str:
        return CliRunner().invoke(main, ["compare", "--counts", str(path), *arguments], prog_name="cloudcover").output

    printed = call("baseline", "final")
    expected = pairs(choose_models(counts, ["baseline", "final"], "vflip"), 1000, 0).iloc[0]
    assert f"final - baseline  {expected['figure']:.4f} - {expected['other_figure']:.4f}" in printed
    assert f"{expected['difference']:+.4f} ({expected['difference_low']:+.4f} to" in printed
    assert printed.rstrip().endswith("*")
    assert "final - final:none" in call("final:none", "final")
    assert call().count(" - ") == 6
    assert "counts contain no round9:vflip" in call("round9", "final")
    assert "baseline:vflip, final/unet:vflip, final:none" in call("round9", "final")
    assert "at least two models" in call("final")
