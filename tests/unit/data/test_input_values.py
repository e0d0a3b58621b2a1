"""Values of a set are used as they are meant, or refused: codes of labels, pixels without data, places, tables."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from cloudcover.data import tables
from cloudcover.data.grid import Grid
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import PackError
from cloudcover.data.tables import TableError
from helpers.layouts import BANDS, make_layout, pixels_of, write_tif
from helpers.stores import reasons, run


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """A set of three chips."""
    make_layout(folder := tmp_path_factory.mktemp("three"), chips=3, unlabelled=0)
    return folder


# --- codes of labels -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.sets(st.sampled_from(["c000", "c001", "c002"]), max_size=3))
def test_a_mixture_of_0_1_and_0_255_masks_is_refused_with_the_counts(three, chips):
    with tempfile.TemporaryDirectory() as name:
        raw = Path(shutil.copytree(three, Path(name, "raw")))
        for chip in chips:
            path = raw / "train_labels" / f"{chip}.tif"
            write_tif(path, pixels_of(path) * np.uint8(255))
        write_file_table(raw, "test")
        if not chips:
            assert len(run(raw)[0]) == 3
            return
        expected = (
            f"{len(chips)} labels hold 255, .* but no 1, and {3 - len(chips)} labels hold a 1: .*write cloud as 1"
        )
        for _ in range(2):  # the second time from the shards of the first
            with pytest.raises(PackError, match=expected):
                run(raw)


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_nodata_value_alone_makes_no_0_255_mask_a_label(layout, all_of_them):
    raw = layout(chips=6, unlabelled=0)
    for path in sorted((raw / "train_labels").iterdir())[: 6 if all_of_them else 2]:
        write_tif(path, pixels_of(path) * np.uint8(255))
        with rasterio.open(path, "r+") as file:
            file.nodata = 255  # copied from a good label
    write_file_table(raw, "test")
    with pytest.raises(PackError, match=r"labels hold 255, .*write cloud as 1"):
        run(raw)


def test_a_clear_label_with_unknown_pixels_is_used_if_its_file_and_the_set_say_so(layout, caplog):
    raw = layout(chips=6)
    clear, cloudy = (raw / f"train_labels/{chip}.tif" for chip in ("c001", "c002"))
    label, other = np.zeros((64, 64), np.uint8), pixels_of(cloudy)
    label[:8] = other[:8] = 255
    write_tif(clear, label)
    write_tif(cloudy, other)
    write_file_table(raw, "test")
    with pytest.raises(PackError, match=r"1 labels hold 255, .*-a_nodata 255"):
        run(raw)
    with rasterio.open(clear, "r+") as file:
        file.nodata = 255
    write_file_table(raw, "test")
    row = run(raw)[0].index.loc["c001"]
    assert row["label_known_share"] == pytest.approx(7 / 8)
    assert row["label_coverage_share"] == 0
    assert "1 labels contain 255 but no 1, interpreted as unknown and clear: c001" in caplog.text


def test_a_clear_label_with_a_mask_of_its_own_is_used(layout):
    raw = layout(chips=6)
    path, known = raw / "train_labels/c001.tif", np.full((64, 64), 255, np.uint8)
    known[:8] = 0
    write_tif(path, np.zeros((64, 64), np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(known)
    write_file_table(raw, "test")
    assert run(raw)[0].index.loc["c001", "label_known_share"] == pytest.approx(7 / 8)


# --- pixels without data -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    nodata=st.sampled_from([0, 65535, 7]), band=st.sampled_from(BANDS), rows=st.integers(0, 64), seed=st.integers(0, 9)
)
def test_a_label_is_unknown_exactly_where_it_says_so_or_a_band_has_no_data(three, nodata, band, rows, seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        raw = Path(shutil.copytree(three, Path(name, "raw")))
        path, label = raw / "train_features/c001" / f"{band}.tif", raw / "train_labels/c001.tif"
        pixels = pixels_of(path)
        pixels[:rows] = nodata
        write_tif(path, pixels)
        given_label = np.where(rng.random((64, 64)) < 0.1, 255, pixels_of(label)).astype(np.uint8)
        given_label[63, 63] = 1
        write_tif(label, given_label)
        write_file_table(raw, "test")
        store, _ = run(raw, nodata=nodata)
        expected = given_label.copy()
        expected[:rows] = 255
        np.testing.assert_array_equal(store.labels(["c001"])[0], expected)
        row = store.index.loc["c001"]
        known = expected[expected != 255]
        assert row["labelled"] == bool(known.size)
        assert row["label_known_share"] == pytest.approx((expected != 255).mean())
        if known.size:
            assert row["label_coverage_share"] == pytest.approx(known.mean())


def test_a_sparse_file_that_reads_as_zeros_is_flagged_and_its_label_unknown(layout):
    raw = layout(chips=6)
    path = raw / "train_features/c001/B03.tif"
    with rasterio.open(path) as source:
        profile = source.profile | {"SPARSE_OK": True}
    path.unlink()
    with rasterio.open(path, "w", **profile):
        pass
    assert path.stat().st_size < 1000
    write_file_table(raw, "test")
    store, _ = run(raw)
    row = store.index.loc["c001"]
    assert row["flags"].split()[:2] == ["empty:B03", "nodata"]
    assert not row["labelled"]
    assert (store.labels(["c001"]) == 255).all()


# --- where a file is -----------------------------------------------------------------------------------------------

WKT = CRS.from_epsg(32633).to_wkt()


@given(
    crs=st.sampled_from(["EPSG:32633", WKT, CRS.from_epsg(32633).to_wkt(version="WKT2_2019"), "EPSG:32634", ""]),
    size=st.floats(0.0001, 60),
    x=st.floats(-1e7, 1e7),
    moved=st.floats(-0.01, 0.01),
    stretched=st.floats(-1e-4, 1e-4),
)
def test_grids_are_the_same_within_a_thousandth_of_a_pixel_over_the_chip(crs, size, x, moved, stretched):
    here = Grid(64, 96, "EPSG:32633", (size, 0.0, x, 0.0, -size, 5e6))
    there = Grid(64, 96, crs, (size * (1 + stretched), 0.0, x + moved * size, 0.0, -size, 5e6))
    shift = max(abs(there.transform[2] - x), abs(there.transform[2] + 96 * there.transform[0] - x - 96 * size)) / size
    assume(abs(shift - 1e-3) > 1e-4)
    problem = there.differences(here)
    assert ("crs" in problem) == (crs in ("EPSG:32634", ""))
    assert ("transform" in problem) == (shift > 1e-3)


@pytest.mark.parametrize(
    "transform", [(0.0,) * 6, (float("nan"), 0.0, 5e5, 0.0, -10.0, 5e6), (10.0, 0.0, 5e5, 0.0, 10.0, 5e6)]
)
def test_a_transform_without_sense_or_upside_down_is_another_place(transform):
    here = Grid(64, 64, "EPSG:32633", (10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    assert "transform" in here.differences(Grid(64, 64, "EPSG:32633", transform))
    assert here.differences(Grid(64, 64, "EPSG:32633", here.transform)) == ""


def test_a_set_whose_transforms_differ_in_the_last_digit_is_packed(layout):
    raw = layout(chips=6)
    for path in sorted(raw.rglob("B0[34].tif")):
        with rasterio.open(path, "r+") as file:
            t = file.transform
            file.transform = rasterio.Affine(t.a * (1 + 1e-9), 0, t.c + 1e-6, 0, t.e, t.f)
            file.crs = CRS.from_wkt(WKT.replace('AUTHORITY["EPSG","32633"]', 'AUTHORITY["LOCAL","1"]'))
    write_file_table(raw, "test")
    assert run(raw)[1].empty


def test_bands_that_disagree_in_crs_are_quarantined_with_both(layout):
    raw = layout(chips=8)
    path = raw / "train_features/c001/B04.tif"
    write_tif(path, pixels_of(path), crs="EPSG:32634")
    write_file_table(raw, "test")
    assert "differs from B02: crs EPSG:32634 against EPSG:32633" in reasons(run(raw)[1])["c001"]


# --- tables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chip_id,verdict,reviewer,reason,time\na,bad,me,blue,sky,\n", "line 2 has 6 fields, but the header 5"),
        ("chip_id,verdict,reviewer,reason,time\na,bad,me,,\nb,ba", "line 3 has 2 fields, but the header 5"),
        ("chip_id,verdict,reviewer,reason,reason\na,bad,me,,\n", "must name each column once"),
        ("", "must name each column once"),
        ('chip_id,verdict,reviewer,reason,time\na,bad,me,"open,\n', "unexpected end of data"),
    ],
)
def test_a_row_with_more_or_fewer_fields_is_named_by_its_line(tmp_path, text, message):
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        tables.VERDICTS.read(path)


def test_a_table_of_a_spreadsheet_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "verdicts.csv"
    path.write_bytes("\ufeffchip_id,verdict,reviewer,reason,time\r\na,bad,Müller,,\r\n".encode())
    assert tables.VERDICTS.read(path)["reviewer"].tolist() == ["Müller"]


TRUTHS = tables.Table("test", {"chip_id": "str", "accepted": "bool"})


@given(
    st.lists(
        st.sampled_from(["True", "False", "TRUE", "false", "1", "0", "", "no", "x", "0.0"]), min_size=1, max_size=4
    )
)
def test_truth_values_are_read_as_written_or_refused(texts):
    values = {"true": True, "1": True, "false": False, "0": False}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "table.csv")
        path.write_text("chip_id,accepted\n" + "".join(f"c{i},{text}\n" for i, text in enumerate(texts)))
        if all(text.lower() in values for text in texts):
            assert TRUTHS.read(path)["accepted"].tolist() == [values[text.lower()] for text in texts]
        else:
            with pytest.raises(TableError, match="is not true or false"):
                TRUTHS.read(path)


@pytest.mark.parametrize("values", [["TRUE"], [None], [2], [0.5], ["False"]])
def test_no_value_of_another_type_becomes_a_truth_value(values):
    with pytest.raises(TableError, match="column accepted is not bool"):
        TRUTHS.check(pd.DataFrame({"chip_id": ["a"], "accepted": values}), "test")
