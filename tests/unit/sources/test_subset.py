"""Which chips of a set are wanted."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.sources.subset import SubsetError, select


def chips(number: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "chip_id": [f"c{i}" for i in range(number)],
            "split": ["train" if i % 3 else "test" for i in range(number)],
            "location": [f"place{i % 4}" for i in range(number)],
        }
    )


@given(st.integers(3, 60), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_larger_share_contains_every_smaller_one(number, a, b):
    small, large = (set(select(chips(number), ["train", "test"], share)["chip_id"]) for share in sorted((a, b)))
    assert small <= large
    assert len(select(chips(number), ["train"], 1.0)) == (chips(number)["split"] == "train").sum()


@given(st.integers(6, 60), st.integers(1, 80))
def test_a_number_is_per_split(number, wanted):
    found = select(chips(number), ["train", "test"], wanted)["split"].value_counts()
    for split, size in chips(number)["split"].value_counts().items():
        assert found[split] == min(wanted, size)


def test_a_subset_by_location_and_by_a_file(tmp_path):
    assert set(select(chips(40), ["train", "test"], ["place1"])["location"]) == {"place1"}
    (tmp_path / "chips.txt").write_text("c1\r\nc2\n\nplace3\n", encoding="utf-8-sig")
    found = select(chips(40), ["train", "test"], str(tmp_path / "chips.txt"))
    assert set(found["chip_id"]) == {"c1", "c2"} | {f"c{i}" for i in range(3, 40, 4)}


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (["c1", "nope"], "the set has no chip or location nope"),
        ("absent.txt", "absent.txt cannot be read"),
        ([], "leave none of 9 chips"),
    ],
)
def test_a_subset_that_fits_nothing_is_an_error(subset, message):
    with pytest.raises(SubsetError, match=message):
        select(chips(9), ["train", "test"], subset)
