"""Files of a set are used, named or refused: nothing is dropped or taken for something else in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.shutil import copy as copy_raster

from cloudcover.cli import main
from cloudcover.data import shards
from cloudcover.data.chips import ChipError, read_band, read_chip
from cloudcover.data.layout import LayoutError, write_file_table
from cloudcover.data.pack import PackError
from cloudcover.data.store import ChipStore
from cloudcover.data.strays import stray_labels
from cloudcover.data.tables import TableError
from cloudcover.models.folder import ModelFolderError
from cloudcover.predict.bundle import load_bundle
from cloudcover.predict.openvino.card import load_export
from cloudcover.predict.openvino.export import export
from cloudcover.runtime.arrays import ArrayError, open_array
from cloudcover.runtime.files import write_json
from cloudcover.sources.remote.fetch import plan
from cloudcover.sources.remote.stores import Listed
from helpers.layouts import BANDS, make_layout, pixels_of, write_tif
from helpers.paths import SHARED
from helpers.stores import bring, reasons, run

# --- files that vanish, appear or change ---------------------------------------------------------------------------


@pytest.mark.parametrize("packed_before", [False, True])
@pytest.mark.parametrize("path", ["train_labels/c001.tif", "train_features/c001/B03.tif"])
def test_a_file_that_vanished_is_named_whether_its_chip_was_packed_before_or_not(layout, path, packed_before):
    raw = layout(chips=8)
    if packed_before:
        run(raw)
    (raw / path).unlink()
    store, quarantine = run(raw)
    assert "c001" not in store.index.index
    assert f"{path} is missing" in reasons(quarantine)["c001"]
    with pytest.raises(PackError, match=f"{path} is missing: `cloudcover verify`"):
        run(raw, max_quarantined=0.0)


@pytest.mark.parametrize("path", ["test_labels/c007.tif", "train_labels/c001.tiff"])
def test_a_label_that_is_not_in_the_manifest_is_not_used(layout, path):
    raw = layout(chips=8)
    write_tif(raw / path, np.ones((64, 64), np.uint8))
    store, quarantine = run(raw)
    chip = Path(path).stem
    assert chip not in store.index.index
    assert f"{path} is not in the manifest" in reasons(quarantine)[chip]


def test_a_file_of_another_length_is_named_though_its_chip_is_in_the_store(layout):
    raw = layout(chips=8)
    run(raw)
    path = raw / "train_features/c002/B02.tif"
    path.write_bytes(path.read_bytes()[:-7])
    _, quarantine = run(raw)
    assert "bytes, expected" in reasons(quarantine)["c002"]


DAMAGES = {
    "a flipped bit": lambda data, at: data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :],
    "a cut": lambda data, at: data[:at],
    "nothing left": lambda data, at: b"",
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A set of six chips, `raw`, and its `store` of two shards."""
    folder = tmp_path_factory.mktemp("packed")
    make_layout(folder / "raw", chips=6, unlabelled=0)
    write_file_table(folder / "raw", "test")
    run(folder / "raw")
    return folder


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_damaged_shard_is_found_by_verify_and_packed_again(packed, data):
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(packed, name, dirs_exist_ok=True)
        raw, before = Path(name, "raw"), ChipStore(Path(name, "store"))
        pixels = before.chips(list(before.index.index))
        assert shards.verify(before.root).empty
        files = sorted(path.name for path in before.root.iterdir())
        path = before.root / data.draw(st.sampled_from(files))
        content = path.read_bytes()
        how = data.draw(st.sampled_from(sorted(DAMAGES)))
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(DAMAGES[how](content, at))
        found = shards.verify(before.root)
        if path.suffix == ".npy":
            assert found["path"].tolist() == [path.name]
        after, _ = run(raw)
        np.testing.assert_array_equal(after.chips(list(after.index.index)), pixels)
        assert shards.verify(after.root).empty


def test_a_flipped_bit_in_the_description_of_the_columns_is_damage(packed, tmp_path):
    shutil.copytree(packed, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "store/index.parquet"
    table = pq.read_table(path)
    description = table.schema.metadata[b"pandas"].replace(b'"pandas_type"', b'"pandas_typd"')
    pq.write_table(table.replace_schema_metadata({b"pandas": description}), path, write_page_checksum=True)
    (problem,) = shards.verify(tmp_path / "store")["problem"]
    assert f"{path} (store index) cannot be read: its description of the columns is damaged" in problem


def test_a_bit_that_flips_in_the_pages_of_a_table_is_found(layout):
    store, _ = run(layout(chips=6))
    path = store.root / "index.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"index\.parquet .* cannot be read"):
        ChipStore(store.root)
    assert shards.verify(store.root)["path"].tolist() == ["index.parquet"]


def test_verify_names_shards_of_the_store_and_ends_with_status_1(layout):
    store, _ = run(layout(chips=6))
    assert "arrays are unchanged" in CliRunner().invoke(main, ["verify", str(store.root)]).output
    path = next(store.root.glob("labels-*.npy"))
    path.write_bytes(path.read_bytes()[:-1])
    result = CliRunner().invoke(main, ["verify", str(store.root)])
    assert result.exit_code == 1
    assert f"{path.name} is damaged" in result.output
    assert "snakemake --forcerun pack" in result.output


def test_verify_without_folders_reads_what_is_there(layout, monkeypatch):
    raw = layout("data/raw", chips=6)
    monkeypatch.chdir(raw.parents[1])
    assert CliRunner().invoke(main, ["verify"]).output == "30 files are unchanged since they were fetched\n"
    run(raw)
    assert len(CliRunner().invoke(main, ["verify"]).output.splitlines()) == 2
    shutil.rmtree(raw)
    assert CliRunner().invoke(main, ["verify"]).output.endswith("arrays are unchanged since they were packed\n")
    shutil.rmtree(raw.parent)
    assert CliRunner().invoke(main, ["verify"]).exit_code == 2


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5000), st.integers(1, 6))
def test_every_reader_of_an_array_names_a_damaged_file(length, rows):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "d4.npy")
        np.save(path, np.arange(rows * 600, dtype=np.uint8).reshape(rows, 600))
        data = path.read_bytes()
        path.write_bytes(data[:length])
        if length < len(data):
            with pytest.raises(ArrayError, match=r"d4\.npy is damaged .*: remove it and run the stage"):
                open_array(path)
        else:
            assert len(open_array(path, rows)) == rows
            with pytest.raises(ArrayError, match=f"holds {rows} rows, expected 7"):
                open_array(path, 7)


def test_a_shard_of_another_number_of_chips_is_named(layout):
    store, _ = run(layout(chips=6))
    path = next(store.root.glob("chips-*.npy"))
    np.save(path, np.load(path)[:-1])
    with pytest.raises(ArrayError, match=f"{path.name} holds"):
        store.chips(list(store.index.index))


# --- files that are not recognised ---------------------------------------------------------------------------------


def spelled(folder: Path, suffix: str) -> None:
    for path in sorted(folder.rglob("*_*/**/*.tif")):
        path.rename(path.with_name(path.stem + suffix))


@pytest.mark.parametrize("suffix", [".TIF", ".tiff", ".TIFF", ".Tif"])
@pytest.mark.parametrize("tile", [False, True])
def test_tiffs_are_known_by_either_suffix_in_any_case(tmp_path, suffix, tile):
    source = tmp_path / "source"
    make_layout(source, chips=3)
    spelled(source, suffix)
    raw = bring(source, tmp_path / "raw", tile=tile, chip_size=32 if tile else 64)
    store, quarantine = run(raw, chip_size=32 if tile else 64)
    assert quarantine.empty
    assert store.index["labelled"].sum() == (4 if tile else 1)


MISNAMED = {
    "c{}_mask.tif": "rename it to c001.tif",
    "mask-C{}.TIF": "rename it to c001.tif",
    "c{}.png": "`gdal_translate c001.png c001.tif` converts it",
    "c{}_labels.jp2": "`gdal_translate c001_labels.jp2 c001.tif` converts it",
    "c{}.vrt": "converts it",
    "label {}": "remove it",
    "c{}": "it may be that of c001, which has none: put the label there as c001.tif",
}


@pytest.mark.parametrize("name", MISNAMED)
def test_labels_of_other_names_or_formats_are_listed_with_what_to_do(tmp_path, name):
    source = tmp_path / "source"
    make_layout(source, chips=6, unlabelled=0)
    for path in (source / "train_labels").iterdir():
        path.rename(path.with_name(name.format(path.stem[1:])))
    with pytest.raises(LayoutError, match=r"6 files of .* are not recognised") as caught:
        bring(source, tmp_path / "raw")
    assert MISNAMED[name] in str(caught.value)


def test_folders_beside_the_layout_are_named(tmp_path, caplog):
    source = tmp_path / "source"
    make_layout(source, chips=6)
    (source / "train_labels").rename(source / "Train_Labels")
    (source / ".git").mkdir()
    bring(source, tmp_path / "raw")
    assert "folders that are not part of the layout are ignored: Train_Labels" in caplog.text
    assert ".git" not in caplog.text


def test_below_the_tolerated_share_they_are_warned_of(tmp_path, caplog):
    source = tmp_path / "source"
    make_layout(source, chips=6, unlabelled=0)
    (source / "train_labels/c003.tif").rename(source / "train_labels/c003_mask.tif")
    (source / "train_labels/README.txt").write_text("mine")
    (source / "train_labels/c002.png").write_text("a preview")
    (source / "train_labels/.DS_Store").write_text("hidden")
    raw = bring(source, tmp_path / "raw", max_quarantined=0.2)
    assert [r.getMessage() for r in caplog.records if "c003_mask" in r.getMessage()]
    assert not [r for r in caplog.records if "README" in r.getMessage() or "preview" in r.getMessage()]
    _, quarantine = run(raw, max_quarantined=0.2)
    assert "it may be that of c003" in reasons(quarantine)["c003_mask.tif"]
    with pytest.raises(PackError, match="1 of 7 chips cannot be used"):
        run(raw, max_quarantined=0.1)


def test_bands_of_other_formats_are_named_with_what_to_do(tmp_path):
    source, more = tmp_path / "source", tmp_path / "more"
    make_layout(source, chips=4)
    (source / "train_features/c001/B03.tif").rename(source / "train_features/c001/B03.jp2")
    (source / "train_features/c000/B04.tif").rename(source / "train_features/c000/T33_B04_10m.tif")
    with pytest.raises(LayoutError, match=r"B03\.jp2 is there: expected a GeoTIFF called B03\.tif \(`gdal_translate`"):
        bring(source, tmp_path / "raw")
    raw = bring(source, tmp_path / "raw", max_quarantined=1)
    with pytest.raises(PackError, match=r"c000 B04: .*B04\.tif is missing, but T33_B04_10m\.tif is there.*rename it"):
        run(raw, max_quarantined=0)
    make_layout(tmp_path / "other", chips=2, unlabelled=0)
    for band in BANDS:
        write_tif(more / "mine1" / f"{band}.TIFF", np.full((64, 64), 900, np.uint16))
    (more / "mine2").mkdir()
    (more / "mine2/B02.jp2").write_text("x")
    with pytest.raises(LayoutError, match=r"mine2/B02\.tif is missing, but B02\.jp2 is there"):
        bring(tmp_path / "other", tmp_path / "raw2", unlabelled=str(more))
    raw = bring(tmp_path / "other", tmp_path / "raw2", unlabelled=str(more), max_quarantined=1)
    assert "mine1" in run(raw)[0].index.index


def test_the_listing_of_a_store_is_compared_with_the_metadata():
    chips = pd.DataFrame({"chip_id": ["c0", "c1"], "split": ["train", "train"]})
    paths = [
        "train_features/c0/B02.TIF",
        "train_features/c1/B02.tif",
        "train_labels/c0.tiff",
        "train_labels/c1_mask.tif",
    ]
    listing = {path: Listed(path) for path in paths}
    assert set(plan(chips, ["B02"], listing)) == {
        "train_features/c0/B02.TIF",
        "train_labels/c0.tiff",
        "train_features/c1/B02.tif",
    }
    assert list(stray_labels(map(Path, listing), chips)) == ["train_labels/c1_mask.tif"]


def test_thirty_thousand_stray_labels_are_listed_in_seconds():
    number = 30_000
    chips = pd.DataFrame({"chip_id": [f"c{i:06d}" for i in range(number)], "split": "train"})
    begin = time.process_time()
    strays = stray_labels((Path(f"train_labels/c{i:06d}_mask.tif") for i in range(number)), chips)
    assert time.process_time() - begin < 10
    assert len(strays) == number
    assert "rename it to c000042.tif" in strays["train_labels/c000042_mask.tif"]


@pytest.mark.parametrize("link", ["copy", "hardlink", "symlink"])
def test_links_to_folders_and_files_are_followed(tmp_path, link):
    apart, source = tmp_path / "apart", tmp_path / "source"
    make_layout(apart, chips=6)
    make_layout(source, chips=6)
    for part in ("train_features/c001", "train_labels"):
        shutil.rmtree(source / part)
        (source / part).symlink_to(apart / part)
    (source / "train_features/c002/B02.tif").unlink()
    (source / "train_features/c002/B02.tif").symlink_to(apart / "train_features/c002/B02.tif")
    store, quarantine = run(bring(source, tmp_path / "raw", link=link))
    assert quarantine.empty
    assert store.index["labelled"].sum() == 4


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "B02.tif")
    with pytest.raises(ChipError, match=r"B02: .*B02\.tif is not a file"):
        read_chip(tmp_path, None, ["B02"], (64, 64))


def test_two_files_of_one_name_are_refused_with_both(layout):
    raw = layout(chips=8)
    shutil.copy(raw / "train_features/c001/B02.tif", raw / "train_features/c001/B02.tiff")
    shutil.copy(raw / "train_labels/c002.tif", raw / "train_labels/c002.tiff")
    write_file_table(raw, "test")
    _, quarantine = run(raw)
    assert "B02.tif and B02.tiff have the same name" in reasons(quarantine)["c001"]
    assert "have the same name: remove one of them" in reasons(quarantine)["c002"]


def test_hidden_folders_are_no_chips(layout):
    raw = layout(chips=4)
    (raw / "train_features/.ipynb_checkpoints").mkdir()
    assert run(raw)[1].empty


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_rows_without_chips_fail_above_the_tolerated_share(layout, share):
    raw = layout(chips=8)
    for chip in ("c001", "c002"):
        shutil.rmtree(raw / "train_features" / chip)
    write_file_table(raw, "test")
    if share < 0.25:
        with pytest.raises(PackError, match=r"2 of 8 chips cannot be used, 25\.0%"):
            run(raw, max_quarantined=share)
    else:
        assert len(run(raw, max_quarantined=share)[1]) == 2


def test_odd_names_of_folders_are_listed_and_end_nothing(layout):
    raw = layout(chips=8)
    for name in ("my chip", "C001", "ö"):
        shutil.copytree(raw / "train_features/c001", raw / "train_features" / name)
    _, quarantine = run(raw)
    assert {"my chip", "C001", "ö"} <= set(quarantine["chip_id"])


# --- one bad chip among good ones ----------------------------------------------------------------------------------


def test_the_given_chip_with_a_band_of_another_size_is_named_and_all_others_are_packed(layout):
    if not (SHARED / "failing-inputs/onebad").exists():
        pytest.skip("shared/failing-inputs is not beside the project")
    raw = layout(chips=8)
    shutil.rmtree(raw / "train_features/c005")
    shutil.copytree(SHARED / "failing-inputs/onebad/c5", raw / "train_features/c005")
    write_file_table(raw, "test")
    size = pixels_of(raw / "train_features/c005/B02.tif").shape[0]
    _, quarantine = run(raw)
    assert reasons(quarantine)["c005"].startswith(("is 90", f"is {size}"))


def test_a_chip_that_cannot_be_read_is_quarantined_and_all_others_are_packed(layout):
    raw = layout(chips=12)
    write_file_table(raw, "test")
    (raw / "train_labels/c002.tif").unlink()
    (raw / "train_labels/c002.tif").mkdir()
    (raw / "train_features/c003/B02.tif").unlink()
    (raw / "train_features/c003/B02.tif").symlink_to("nowhere.tif")
    store, quarantine = run(raw)
    assert set(quarantine["chip_id"]) == {"c002", "c003"}
    assert len(store) == 10


def test_downloading_brings_all_other_files_and_names_each_that_cannot_be_used(tmp_path):
    source = tmp_path / "source"
    make_layout(source, chips=6)
    (source / "train_features/c001/B02.tif").unlink()
    (source / "train_features/c001/B02.tif").symlink_to("nowhere.tif")
    (source / "train_labels/c002.tif.msk").write_text("a mask")
    with pytest.raises(LayoutError, match="2 files cannot be used; all others are in place") as caught:
        bring(source, tmp_path / "raw", link="symlink")
    assert "B02.tif is not a file that can be read: it is a link to nowhere.tif" in str(caught.value)
    assert "c002.tif.msk holds a mask" in str(caught.value)
    assert len(list((tmp_path / "raw").glob("*_features/*/*.tif"))) == 6 * 4 - 1
    assert not (tmp_path / "raw/files.csv").exists()


def test_tiling_cuts_all_other_images_and_names_each_that_cannot_be_used(tmp_path):
    source = tmp_path / "source"
    make_layout(source, chips=6, unlabelled=0)
    write_tif(source / "train_features/c001/B03.tif", np.ones((60, 64), np.uint16))
    for band in BANDS:
        write_tif(source / "train_features/c002" / f"{band}.tif", np.ones((20, 64), np.uint16))
    (source / "train_features/c003/B02.tif").write_text("<html>")
    path = source / "train_features/c004/B02.tif"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ChipError, match="images: 7 cannot be used; all others are done") as caught:
        bring(source, tmp_path / "raw", tile=True, chip_size=32)
    for expected in ("c001 B03: is 60 x 64", "c002 ", "c003 B02: ", "c004_"):
        assert expected in str(caught.value)
    assert len(list((tmp_path / "raw/train_labels").iterdir())) >= 8
    assert len(list((tmp_path / "raw/train_features/c005_32_32").iterdir())) == 4


# --- files that are not what their name says -----------------------------------------------------------------------


def test_a_vrt_that_is_called_tif_reads_no_other_file(layout, tmp_path):
    raw = layout(chips=6)
    secret = tmp_path / "secret.tif"
    write_tif(secret, np.full((64, 64), 4242, np.uint16))
    path = raw / "train_features/c001/B02.tif"
    copy_raster(str(secret), str(path), driver="VRT")
    assert (pixels_of(path) == 4242).all()  # GDAL itself would read it
    with pytest.raises(ChipError, match=r"B02\.tif cannot be read .*not a GeoTIFF"):
        read_band(path, "B02", 0, 0)
    write_file_table(raw, "test")
    assert reasons(run(raw)[1]).keys() == {"c001"}


def test_a_small_file_of_a_huge_image_is_refused_before_its_pixels_are_read(tmp_path):
    program = (
        "import resource, sys; from pathlib import Path; import numpy\n"
        "from cloudcover.data.chips import ChipError, read_chip, read_mask\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "for read in (lambda: read_chip(Path(sys.argv[1]), None, ['B02'], (64, 64)),\n"
        "             lambda: read_mask(Path(sys.argv[1], 'B03.tif'), 'label')):\n"
        "    try: read()\n"
        "    except ChipError as error: print(error)\n"
    )
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": 60_000,
        "width": 60_000,
        "compress": "deflate",
        "SPARSE_OK": True,
    }
    for name, dtype in (("B02", "uint16"), ("B03", "uint8")):
        with rasterio.open(tmp_path / f"{name}.tif", "w", dtype=dtype, **profile, tiled=True):
            pass
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert "B02: is 60000 x 60000 pixels, expected 64 x 64" in done.stdout
    assert "is 60000 x 60000 pixels, more than 268,435,456" in done.stdout


ESCAPES = ["../../victim", "/etc", "a/b", "..", ".", "", "a\\n", "a\0b"]


@pytest.mark.parametrize("name", ESCAPES)
def test_the_card_of_a_bundle_names_no_folder_outside(tmp_path, name):
    settings = {"weights": {name: 1.0}, "threshold": 0.5}
    card = {"models": [name], "tta": "none", "metrics": {}, "settings": settings}
    write_json(tmp_path / "in/bundle.json", card)
    for use in (lambda: load_bundle(tmp_path / "in"), lambda: export(tmp_path / "in", tmp_path / "out", "fp32")):
        with pytest.raises(ModelFolderError, match=r"bundle\.json is not a bundle's card"):
            use()
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == ["in"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name != ".cloudcover"]


@pytest.mark.parametrize(
    "hashes", [{}, {"model.xml": "0"}, {"../../victim": "0"}, {"model.xml": "0", "model.bin": "0", "more": "0"}]
)
def test_the_card_of_an_export_must_hold_the_hashes_of_its_files(tmp_path, hashes):
    write_json(tmp_path / "export.json", {"precision": "fp32", "source_sha256": "0", "files_sha256": hashes})
    with pytest.raises(ModelFolderError, match=r"must hold the hashes of model\.xml and model\.bin"):
        load_export(tmp_path)
