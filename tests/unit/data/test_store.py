"""Packing and reading the store, and what happens to chips that cannot be used."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cloudcover.data import tables
from cloudcover.data.layout import write_file_table
from cloudcover.data.pack import PackError, shard_of
from cloudcover.data.statistics import band_statistics, exact_percentiles, flags
from cloudcover.data.store import ChipStore
from cloudcover.data.tables import TableError
from helpers.layouts import BANDS, make_layout, write_tif
from helpers.stores import run


def test_the_store_returns_the_pixels_of_the_files(layout):
    raw = layout(chips=12)
    store, quarantine = run(raw)
    assert len(store) == 12
    assert quarantine.empty
    ids = ["c007", "c000", "c011"]
    chips, labels = store.chips(ids), store.labels(ids)
    for i, chip_id in enumerate(ids):
        folder = raw / ("test_features" if chip_id == "c011" else "train_features") / chip_id
        for band, name in enumerate(BANDS):
            with rasterio.open(folder / f"{name}.tif") as source:
                np.testing.assert_array_equal(chips[i, band], source.read(1))
    with rasterio.open(raw / "train_labels" / "c007.tif") as source:
        np.testing.assert_array_equal(labels[0], source.read(1))
    assert (labels[2] == 255).all()
    assert store.index["labelled"].sum() == 10
    assert store.bands() == BANDS


def test_a_buffer_is_filled_and_returned(layout):
    store, _ = run(layout(chips=6))
    buffer = np.zeros((8, 4, 64, 64), np.uint16)
    got = store.chips(["c001", "c002"], out=buffer)
    assert got.base is buffer
    np.testing.assert_array_equal(got, store.chips(["c001", "c002"]))


def test_mapped_chips_are_read_only_views_of_the_shards(layout):
    store, _ = run(layout(chips=6))
    ids = ["c004", "c000"]
    mapped = store.mapped(ids)
    np.testing.assert_array_equal(np.stack(mapped), store.chips(ids))
    for chip, again in zip(mapped, store.mapped(ids), strict=True):
        assert np.shares_memory(chip, again)
        assert not chip.flags.writeable
    with pytest.raises(KeyError, match="the store has no chip c9"):
        store.mapped(["c9"])


def test_thirty_thousand_chips_are_looked_up_in_seconds(tmp_path):
    number = 30_000
    columns = {c: {"str": "", "int64": 0, "float64": 0.0, "bool": False}[t] for c, t in tables.INDEX.columns.items()}
    ids = [f"c{i:06d}" for i in range(number)]
    index = pd.DataFrame(columns | {"split": "test", "crs": "EPSG:32633"}, index=range(number))
    index["chip_id"], index["transform"] = ids, [f"10.0 0.0 {x}.0 0.0 -10.0 5000000.0" for x in range(number)]
    tables.INDEX.write(index, tmp_path / "index.parquet")
    store = ChipStore(tmp_path)
    begin = time.process_time()
    found = [place for batch in store.batches(ids, 32) for place in store.places(batch)]
    assert time.process_time() - begin < 5
    assert found[4242] == ("EPSG:32633", [10.0, 0.0, 4242.0, 0.0, -10.0, 5e6])


def test_statistics_in_the_index_leave_nodata_out(layout, tmp_path):
    raw = layout(chips=4, unlabelled=0)
    path = raw / "train_features" / "c001" / "B02.tif"
    with rasterio.open(path) as source:
        pixels = source.read(1)
    pixels[:10] = 0
    write_tif(path, pixels)
    write_file_table(raw, "test")
    store, _ = run(raw)
    row = store.index.loc["c001"]
    assert row["mean_B02_dn"] == pytest.approx(pixels[10:].mean())
    assert row["p98_B02_dn"] == pytest.approx(np.percentile(pixels[10:], 98))
    assert row["nodata_share"] == pytest.approx(10 / 64)
    assert "nodata" in row["flags"]
    assert store.percentiles(["c001"]).shape == (1, 4, 2)


def test_coverage_leaves_unknown_pixels_of_a_label_out(layout):
    raw = layout(chips=4, unlabelled=0)
    label = np.zeros((64, 64), np.uint8)
    label[:16], label[16:32] = 255, 1
    write_tif(raw / "train_labels" / "c002.tif", label)
    write_file_table(raw, "test")
    row = run(raw)[0].index.loc["c002"]
    assert row["label_coverage_share"] == pytest.approx(1 / 3)
    assert row["label_known_share"] == pytest.approx(3 / 4)


def test_the_result_does_not_depend_on_the_number_of_workers(layout):
    raw = layout(chips=10)
    one, _ = run(raw)
    index, chips = one.index.copy(), np.array(one.chips(list(one.index.index)))
    shutil.rmtree(raw.parent / "store")
    two, _ = run(raw, workers=2)
    pd.testing.assert_frame_equal(index, two.index)
    np.testing.assert_array_equal(chips, two.chips(list(two.index.index)))


def test_a_killed_worker_ends_packing_without_an_index_and_the_next_run_completes_it(layout):
    raw = layout(chips=10)
    finished = threading.Event()

    def kill_one():
        # Not while the pool still starts the others: CPython then waits for those for ever.
        while len(multiprocessing.active_children()) < 2 and not finished.is_set():
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with pytest.raises(BrokenProcessPool):
            run(raw, workers=2)
    finally:
        finished.set()
        killer.join()
    assert not (raw.parent / "store" / "index.parquet").exists()
    store, _ = run(raw)
    assert len(store) == 10


def test_a_new_chip_rewrites_one_shard_and_a_removed_one_too(layout, tmp_path):
    raw = layout(chips=13, unlabelled=0)
    run(raw)
    before = {p.name: p.stat().st_mtime_ns for p in (raw.parent / "store").glob("chips-*.npy")}
    assert len(before) > 2
    make_layout(raw, chips=14, unlabelled=0)
    write_file_table(raw, "test")
    store, _ = run(raw)
    after = {p.name: p.stat().st_mtime_ns for p in (raw.parent / "store").glob("chips-*.npy")}
    assert len(store) == 14
    assert sum(after[name] != before.get(name) for name in after) == 1


@given(st.text("abcdef0123456789", min_size=1, max_size=8), st.sampled_from([1, 2, 8, 256]))
def test_a_shard_follows_from_the_id_and_doubling_splits_shards(chip_id, shards):
    shard = shard_of(chip_id, shards)
    assert 0 <= shard < shards
    assert shard_of(chip_id, shards * 2) % shards == shard


def test_a_truncated_band_is_quarantined_with_band_and_reason(layout):
    raw = layout(chips=8)
    path = raw / "train_features" / "c002" / "B03.tif"
    path.write_bytes(path.read_bytes()[:200])
    write_file_table(raw, "test")
    store, quarantine = run(raw)
    assert quarantine[["chip_id", "band"]].to_numpy().tolist() == [["c002", "B03"]]
    assert "truncated" in quarantine["reason"][0]
    assert "c002" not in store.index.index


def test_too_many_unusable_chips_fail_and_leave_no_index(layout):
    raw = layout(chips=8)
    (raw / "train_features" / "c002" / "B03.tif").unlink()
    write_file_table(raw, "test")
    with pytest.raises(PackError, match=r"1 of 8 chips cannot be used, 12\.5%.*\n.*c002 B03: .* is missing"):
        run(raw, max_quarantined=0.1)
    assert not (raw.parent / "store" / "index.parquet").exists()


def test_a_flipped_bit_is_found_by_the_manifest(layout):
    raw = layout(chips=8)
    path = raw / "train_features" / "c002" / "B03.tif"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    _, quarantine = run(raw)
    assert quarantine["chip_id"].tolist() == ["c002"]
    assert "SHA-256 differs" in quarantine["reason"][0]


@pytest.mark.parametrize(
    ("size", "reason"), [(32, "is 32 x 32 pixels, expected 64 x 64"), (96, "is 96 x 96 pixels, expected 64 x 64")]
)
def test_a_band_of_another_shape_names_both_shapes(layout, size, reason):
    raw = layout(chips=8)
    write_tif(raw / "train_features" / "c002" / "B04.tif", np.ones((size, size), np.uint16))
    write_file_table(raw, "test")
    _, quarantine = run(raw)
    assert reason in quarantine["reason"][0]
    assert quarantine["band"][0] == "B04"


def test_a_label_of_another_shape_crs_or_place_is_quarantined_with_both(layout):
    raw = layout(chips=12)
    zeros = np.zeros((64, 64), np.uint8)
    write_tif(raw / "train_labels" / "c001.tif", np.zeros((32, 64), np.uint8))
    write_tif(raw / "train_labels" / "c002.tif", zeros, crs="EPSG:32634")
    write_tif(raw / "train_labels" / "c003.tif", zeros, x=500_010)
    write_file_table(raw, "test")
    _, quarantine = run(raw)
    reasons = quarantine.set_index("chip_id")["reason"]
    assert "height 32 against 64" in reasons["c001"]
    assert "crs EPSG:32634 against EPSG:32633" in reasons["c002"]
    assert "transform" in reasons["c003"]
    assert "500010.0" in reasons["c003"]


def test_label_values_outside_0_1_255_are_refused_with_the_histogram(layout):
    raw = layout(chips=8)
    label = np.zeros((64, 64), np.uint8)
    label[:8] = 7
    write_tif(raw / "train_labels" / "c001.tif", label)
    write_file_table(raw, "test")
    _, quarantine = run(raw)
    assert "{0: 3584, 7: 512}" in quarantine["reason"][0]


def test_a_set_of_0_255_masks_is_refused(layout):
    raw = layout(chips=8)
    for path in (raw / "train_labels").glob("*.tif"):
        with rasterio.open(path) as source:
            mask = source.read(1)
        write_tif(path, mask * np.uint8(255))
    write_file_table(raw, "test")
    with pytest.raises(PackError, match="0/255 masks; write cloud as 1"):
        run(raw)


def test_chips_without_rows_and_rows_without_chips_are_listed(layout):
    raw = layout(chips=12)
    shutil.rmtree(raw / "train_features" / "c003")
    shutil.copytree(raw / "train_features" / "c004", raw / "train_features" / "stray")
    write_file_table(raw, "test")
    _, quarantine = run(raw)
    reasons = quarantine.set_index("chip_id")["reason"]
    assert "no folder of bands" in reasons["c003"]
    assert "no row in the metadata" in reasons["stray"]


def test_duplicated_and_unsafe_ids_name_the_rows(layout):
    raw = layout(chips=4, unlabelled=0)
    table = raw / "train_metadata.csv"
    table.write_text(table.read_text() + "C001,place,,x\n")
    with pytest.raises(TableError, match="rows 3, 6 have the same chip_id"):
        run(raw)
    table.write_text("chip_id,location,datetime,cloudpath\n../x,place,,x\n")
    with pytest.raises(TableError, match=r"rows 2 hold \['\.\./x'\]"):
        run(raw)


@given(hnp.arrays(np.uint16, st.integers(1, 200)))
def test_percentiles_equal_numpys(values):
    np.testing.assert_allclose(exact_percentiles(values), np.percentile(values, [2, 50, 98]), rtol=1e-12)


def test_constant_and_empty_bands_have_finite_statistics_and_flags():
    bands = np.stack([np.full((8, 8), 500), np.zeros((8, 8)), np.arange(64).reshape(8, 8) + 1]).astype(np.uint16)
    for band in bands:
        assert all(np.isfinite(v) for v in band_statistics(band, "B02", 0).values())
    assert flags(bands, ["B02", "B03", "B04"], 0) == "constant:B02 empty:B03 nodata"
