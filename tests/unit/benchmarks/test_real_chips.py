"""The benchmark on real chips: its figures, its keys, and the chips themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from real_chips import figures, flat, recipe

from helpers.paths import ROOT, SHARED

CLOUDY, CLEAR = np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
PARTLY = np.array([[1, 1], [0, 255]], np.uint8)


@pytest.fixture
def real_chips() -> Path:
    """Labelled chips of the challenge."""
    folder = SHARED / "real-chips"
    if not folder.exists():
        pytest.skip("shared/real-chips is not beside the project")
    return folder


def test_jaccard_adds_pixels_of_all_chips_and_unknown_ones_do_not_count():
    labels = {"cloudy": CLOUDY, "clear": CLEAR, "edge": PARTLY}
    masks = {"cloudy": CLOUDY, "clear": np.eye(2, dtype=np.uint8), "edge": np.array([[1, 0], [1, 1]], np.uint8)}
    row = figures(masks, labels)
    assert row["cloudy"] == 1
    assert row["clear"] == 0.5  # the share that stays clear
    assert row["partly"] == row["edge"] == pytest.approx(1 / 3)
    assert row["jaccard"] == pytest.approx((4 + 1) / (4 + 2 + 3))


def test_jaccard_without_any_cloud_is_one():
    assert figures({"a": CLEAR}, {"a": CLEAR})["jaccard"] == 1


def test_keys_are_flat_and_the_judged_way_has_the_plain_one():
    rows = {"threshold": {"jaccard": 0.5, "a": 0.1}, "model": {"jaccard": 0.75, "a": 0.2}}
    assert flat(rows, "model") == {
        "jaccard": 0.75, "jaccard_threshold": 0.5, "a_threshold": 0.1, "jaccard_model": 0.75, "a_model": 0.2,
    }  # fmt: skip
    assert "jaccard" not in flat(rows, None)


def test_the_recipe_is_the_preset_but_for_its_own_changes():
    params = recipe(ROOT / "config/presets/quick.yaml", 5, "cpu")
    assert (params.seed, params.compute.device, params.data.chip_size) == (5, "cpu", 128)
    assert params.model.encoder == "tu-mobilenetv3_small_050"


def test_the_threshold_on_the_real_chips(real_chips, tmp_path):
    out = tmp_path / "figures.json"
    program = ROOT / "benchmarks" / "real_chips.py"
    command = [sys.executable, program, "--chips", real_chips, "--quick", "--json", out]
    subprocess.run([*command, "--ukis-python", tmp_path / "none"], check=True, capture_output=True)
    values = json.loads(out.read_text())
    assert values["jaccard_threshold"] == pytest.approx(0.852, abs=0.001)
    assert values["101657_threshold"] < 0.9  # bright soil is no cloud
