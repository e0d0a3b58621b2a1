"""Tables are checked when they are written and when they are read."""

import pandas as pd
import pytest

from cloudcover.data import tables
from cloudcover.data.tables import TableError


def metadata(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"chip_id": ids, "location": "x", "datetime": "", "cloudpath": ""})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_written_is_read(tmp_path, suffix):
    frame = pd.DataFrame({"chip_id": ["a", "007"], "fold": [0, 1], "scene": ["s", ""]})
    tables.FOLDS.write(frame, tmp_path / f"folds.{suffix}")
    pd.testing.assert_frame_equal(tables.FOLDS.read(tmp_path / f"folds.{suffix}"), frame, check_dtype=False)


def test_booleans_and_missing_numbers_survive_csv(tmp_path):
    frame = pd.DataFrame(
        {
            "chip_id": ["a", "a"], "student": [0, 1], "row": [0, 1], "fold": [0, 1], "candidate": ["bad", "unlabelled"],
            "accepted": [True, False], "confident_share": [0.95, 0.1], "coverage_share": [0.5, 0.5],
            "agreement_iou": [0.5, float("nan")], "change": ["added", "none"],
            "changed_pixels_share": [float("nan")] * 2,
        }
    )  # fmt: skip
    tables.PSEUDO.write(frame, tmp_path / "p.csv")
    read = tables.PSEUDO.read(tmp_path / "p.csv")
    assert read["accepted"].tolist() == [True, False]
    assert read["agreement_iou"].isna().tolist() == [False, True]


@pytest.mark.parametrize("ids", [("a", "a"), ("Chip", "chip")])
def test_duplicated_ids_are_named_with_their_rows(ids):
    with pytest.raises(TableError, match=r"rows 2, 3 have the same chip_id"):
        tables.METADATA.check(metadata(*ids), "train_metadata.csv")


@pytest.mark.parametrize("chip_id", ["../etc", "a/b", "..", "", "a..b", ".hidden"])
def test_ids_that_are_not_plain_names_are_refused(chip_id):
    with pytest.raises(TableError, match=r"train_metadata.csv.*rows 3"):
        tables.METADATA.check(metadata("fine", chip_id), "train_metadata.csv")


def test_a_missing_column_a_wrong_value_and_an_empty_file_are_named(tmp_path):
    with pytest.raises(TableError, match=r"missing columns \['scene'\]"):
        tables.FOLDS.check(pd.DataFrame({"chip_id": ["a"], "fold": [1]}), "f")
    with pytest.raises(TableError, match=r"column fold is not int64"):
        tables.FOLDS.check(pd.DataFrame({"chip_id": ["a"], "fold": ["x"], "scene": ["s"]}), "f")
    frame = pd.DataFrame({"chip_id": ["a"], "verdict": ["maybe"], "reviewer": [""], "reason": [""], "time": [""]})
    with pytest.raises(TableError, match=r"verdict has \['maybe'\] in rows 2; options"):
        tables.VERDICTS.check(frame, "v")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(TableError, match=r"empty.csv .* cannot be read"):
        tables.FOLDS.read(tmp_path / "empty.csv")
