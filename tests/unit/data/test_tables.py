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
            "chip_id": ["a", "b"], "shard": 0, "row": [0, 1], "split": "train", "location": "x", "datetime": "",
            "scene": "x", "labelled": [True, False], "label_coverage_share": [0.5, float("nan")],
            "label_known_share": 1.0, "nodata_share": 0.0, "flags": "", "crs": "", "transform": "",
            "source_sha256": "",
        }
    )  # fmt: skip
    tables.INDEX.write(frame, tmp_path / "index.csv")
    read = tables.INDEX.read(tmp_path / "index.csv")
    assert read["labelled"].tolist() == [True, False]
    assert read["label_coverage_share"].isna().tolist() == [False, True]


def test_further_columns_of_an_audit_are_numbers(tmp_path):
    frame = pd.DataFrame(
        {"chip_id": ["1", "2"], "suspicion": [0.5, 0.1], "reasons": "", "evidence": [0.25, float("nan")]}
    )
    tables.AUDIT.write(frame, tmp_path / "audit.csv")
    read = tables.AUDIT.read(tmp_path / "audit.csv")
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    with pytest.raises(TableError, match="column evidence is not float64"):
        tables.AUDIT.check(frame.assign(evidence="much"), "audit")


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
