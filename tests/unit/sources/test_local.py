"""The local source: a folder in the challenge's layout comes in unchanged, or is cut into tiles."""

import shutil

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data import tables
from cloudcover.data.layout import LayoutError, layout_files, read_metadata
from cloudcover.runtime.files import sha256
from cloudcover.sources.fetch import fetch
from cloudcover.sources.local import windows
from helpers.layouts import BANDS, make_layout


def bring(source, tmp_path, **changes):
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams.model_validate({}), 0, tmp_path / "raw", tmp_path / "truth")
    return tmp_path / "raw"


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_the_folder_comes_in_and_is_not_changed(tmp_path, link):
    source = tmp_path / "source"
    make_layout(source, chips=4)
    before = {p: (sha256(source / p), (source / p).stat().st_mtime_ns) for p in layout_files(source)}
    raw = bring(source, tmp_path, link=link)
    manifest = tables.FILES.read(raw / "files.csv").set_index("path")
    assert {p.as_posix() for p in before} == set(manifest.index)
    for path, (digest, time) in before.items():
        assert manifest.at[path.as_posix(), "sha256"] == digest
        assert ((raw / path).read_bytes()) == (source / path).read_bytes()
        assert (sha256(source / path), (source / path).stat().st_mtime_ns) == (digest, time)
    assert tables.TRUTH.read(tmp_path / "truth" / "masks.csv").empty


def test_files_that_the_source_no_longer_has_are_removed(tmp_path):
    source = tmp_path / "source"
    make_layout(source, chips=4, unlabelled=0)
    raw = bring(source, tmp_path)
    (source / "train_labels" / "c003.tif").unlink()
    shutil.rmtree(source / "train_features" / "c001")
    bring(source, tmp_path)
    assert not (raw / "train_labels" / "c003.tif").exists()
    assert not (raw / "train_features" / "c001").exists(), "packing would take it for a chip without a row"
    assert (raw / "train_labels" / "c002.tif").exists()


def test_larger_images_are_cut_into_tiles_with_their_own_place(tmp_path):
    source = tmp_path / "source"
    make_layout(source, chips=3, size=96, unlabelled=1)
    raw = bring(source, tmp_path, tile=True, chip_size=64)
    metadata = tables.METADATA.read(raw / "train_metadata.csv")
    assert sorted(metadata["chip_id"])[:4] == ["c000_0_0", "c000_0_32", "c000_32_0", "c000_32_32"]
    assert metadata.loc[0, "location"] == "place0"
    for band in BANDS:
        with (
            rasterio.open(source / "train_features" / "c001" / f"{band}.tif") as whole,
            rasterio.open(raw / "train_features" / "c001_32_0" / f"{band}.tif") as tile,
        ):
            np.testing.assert_array_equal(tile.read(1), whole.read(1)[32:96, 0:64])
            assert tile.transform * (0, 0) == whole.transform * (0, 32)
            assert tile.crs == whole.crs
    assert (raw / "train_labels" / "c001_32_0.tif").exists()
    assert len(list((raw / "test_features").iterdir())) == 4


@given(st.integers(0, 170), st.integers(0, 170), st.sampled_from([32, 64]))
def test_tiles_cover_an_image_and_stay_inside(more_rows, more_columns, size):
    height, width = size + more_rows, size + more_columns
    covered = np.zeros((height, width), bool)
    for window in windows(height, width, size):
        rows, columns = window.toslices()
        assert rows.start >= 0
        assert columns.start >= 0
        assert covered[rows, columns].shape == (size, size)
        covered[rows, columns] = True
    assert covered.all()


def test_a_pulled_table_without_its_raw_files_names_the_command_that_fetches_them(tmp_path):
    (tmp_path / "files.csv").write_text("")
    with pytest.raises(LayoutError, match=r"train_metadata\.csv is missing.*--forcerun download"):
        read_metadata(tmp_path)


def test_a_folder_of_another_layout_says_what_was_expected(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(LayoutError, match=r"train_metadata\.csv is missing: expected"):
        bring(tmp_path / "source", tmp_path)
    (tmp_path / "source" / "train_metadata.csv").write_text("chip_id,location,datetime,cloudpath\n")
    with pytest.raises(LayoutError, match="lists no chips"):
        bring(tmp_path / "source", tmp_path)
