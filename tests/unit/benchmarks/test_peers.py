"""The comparison with other projects: its figures, its groups of real chips, and which model judges which chip."""

from __future__ import annotations

import numpy as np
import pytest
from peers import Group, believable, counts, figures, groups, judge, per_chip, table, threshold
from real_chips import Real

from helpers.paths import SHARED

CLOUDY, CLEAR = np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
PARTLY = np.array([[1, 1], [0, 255]], np.uint8)


def test_figures_of_all_partly_cloudy_and_clear_chips():
    labels = {"cloudy": CLOUDY, "clear": CLEAR, "edge": PARTLY}
    masks = {"cloudy": CLOUDY, "clear": np.eye(2, dtype=np.uint8), "edge": np.array([[1, 0], [1, 1]], np.uint8)}
    found = counts(masks, labels)
    assert figures(found) == {"jaccard": pytest.approx(5 / 9), "partly": pytest.approx(1 / 3), "false_cloud": 0.5}
    assert per_chip(found) == {"cloudy": 1, "clear": -0.5, "edge": pytest.approx(1 / 3)}


def test_the_table_has_a_row_for_each_group_and_way():
    row = {"jaccard": 0.5, "partly": 0.25, "false_cloud": 0.125}
    lines = table({"a": {"one": row, "two": row}, "b": {"one": row, "two": row}}).splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| one", "a"], ["| one", "b"], ["| two", "a"], ["| two", "b"],
    ]  # fmt: skip
    assert lines[2].endswith("| 0.500 | 0.250 | 0.125 |")


@pytest.fixture
def sets() -> dict[str, Group]:
    if missing := [n for n in ("real-chips", "real-labels", "landsat-biome") if not (SHARED / n).exists()]:
        pytest.skip(f"not beside the project: shared/{', shared/'.join(missing)}")
    return {group.name: group for group in groups(SHARED)}


def test_a_rejected_label_is_not_believed_and_a_place_that_is_named_twice_is_one(sets):
    assert sorted(believable(SHARED / "real-labels")) == ["adwp", "adwz", "adxp", "aeaj", "ijgr", "kguj"]
    assert {name: len(group.real.labels) for name, group in sets.items()} == {
        "real-chips": 5, "real-labels": 6, "landsat-biome": 16,
    }  # fmt: skip
    assert sets["real-chips"].place("chip_id_1") == sets["real-chips"].place("adwz") == "Chifunfu"
    assert sets["landsat-biome"].real.chips["SnowIce_00_1415"].shape == (4, 256, 256)


def test_the_threshold_on_the_three_groups(sets):
    found = judge({"threshold": threshold}, list(sets.values()))["threshold"]
    assert {name: round(figures(by_chip)["jaccard"], 3) for name, by_chip in found.items()} == {
        "real-chips": 0.852, "real-labels": 0.842, "landsat-biome": 0.368,
    }  # fmt: skip
    assert figures(found["landsat-biome"])["false_cloud"] == 1


def test_chips_can_be_chosen_by_name(sets):
    real = Real(SHARED / "real-labels", ["kguj"])
    assert list(real.labels) == ["kguj"]
