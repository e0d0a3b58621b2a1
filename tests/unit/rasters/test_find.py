"""Which images a path holds, how each is read, and what is said of it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cloudcover.data.chips import ChipError
from cloudcover.data.offsets import suspected_offset
from cloudcover.data.ownership import reserve
from cloudcover.rasters.find import find_images
from helpers.images import read, shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, chip, stored, write, write_hls, write_landsat, write_safe, zipped

WHOLE = slice(0, SIZE)
STACKED = np.stack([stored(i) for i in range(5)])


def test_a_folder_of_everything_gives_each_image_once(tmp_path):
    chip(tmp_path / "chips" / "c1")
    chip(tmp_path / "chips" / "c0")
    chip(tmp_path / "chips" / ".trash")
    (tmp_path / "chips" / "loop").symlink_to(tmp_path)
    write_safe(tmp_path / "products", baseline="03.01")
    zipped(write_safe(tmp_path / "products", "1C", "03.01")[0])
    write_landsat(tmp_path)
    write_hls(tmp_path, "S30")
    for i, band in enumerate(BANDS):
        write(tmp_path / "named" / f"x_{band}.jp2", stored(i))
    write(tmp_path / "labels" / "c0.tif", np.ones((SIZE, SIZE), np.uint8))
    found = find_images([tmp_path], BANDS)
    assert sorted((image.kind, image.name.split("_2")[0]) for image in found) == [
        ("bands", "x"),
        ("chip", "c0"),
        ("chip", "c1"),
        ("hls", "HLS.S30.T32TQM.2020001T101010.v2.0"),
        ("landsat", "LC08_L2SP_127041"),
        ("safe", "S2A_MSIL1C"),
        ("safe", "S2A_MSIL2A"),
    ]
    for image in found:
        with image.open() as file:
            assert file.read(slice(0, 8), slice(0, 8)).shape == (4, 8, 8)


def test_a_folder_that_may_not_be_listed_is_named_and_all_others_are_found():
    with tempfile.TemporaryDirectory() as name:  # not below the folder of pytest, which is root's alone
        top = Path(name)
        top.chmod(0o755)
        for number in range(3):
            chip(top / f"c{number}")
        (top / "c1").chmod(0)
        here, there = multiprocessing.Pipe()

        def work() -> None:
            if os.geteuid() == 0:
                os.setuid(65534)
            told = {}
            for image in find_images([top], BANDS):
                try:
                    with image.open():
                        told[image.name] = ""
                except ChipError as error:
                    told[image.name] = str(error)
            there.send(told)

        multiprocessing.get_context("fork").Process(target=work).start()
        assert here.poll(60)
        told = here.recv()
        (top / "c1").chmod(0o755)
    problem = f"c1: {top / 'c1'} cannot be listed: Permission denied; change its permissions"
    assert told == {"c0": "", "c1": problem, "c2": ""}


def test_paths_without_an_image_are_named_with_what_is_expected(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        find_images([tmp_path / "nowhere"], BANDS)
    write(tmp_path / "labels" / "c0.tif", np.ones((SIZE, SIZE), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"labels contains no image: expected a folder with B02\.tif .*\.SAFE"):
        find_images([tmp_path / "labels"], BANDS)
    (tmp_path / "labels" / "readme.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"readme\.txt contains no image"):
        find_images([tmp_path / "labels" / "readme.txt"], BANDS)
    with pytest.raises(FileNotFoundError, match="contains no image for --as safe"):
        find_images([tmp_path / "labels"], BANDS, kind="safe")
    chip(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    assert [image.name for image in find_images(["."], BANDS)] == ["here"]


def test_paths_without_a_meaning_are_refused(tmp_path, monkeypatch):
    chip(tmp_path / "c0")
    monkeypatch.chdir(tmp_path)  # an empty path is the current folder for the system
    with pytest.raises(ValueError, match="the empty path"):
        find_images(["c0", ""], BANDS)
    for url in ("gs://bucket/x.tif?key=s3cret", "file:///x.json"):
        with pytest.raises(ValueError, match="cannot be read: only http, https, s3 are supported") as error:
            find_images([url], BANDS)
        assert "s3cret" not in str(error.value)
    for offset in (-1000, 0.1):
        with pytest.raises(ValueError, match=f"the offset is {offset}, expected the DN that were added"):
            find_images(["c0"], BANDS, offset=offset)


def test_an_image_that_is_named_twice_is_found_once(tmp_path):
    chip(tmp_path / "set" / "c0")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    path = write(tmp_path / "r" / "x.tif", STACKED[:4], descriptions=BANDS)
    safe, _ = write_safe(tmp_path / "p", baseline="03.01")
    paths = [tmp_path / "set", tmp_path / "set/c0", tmp_path / "link/c0", safe, safe / "MTD_MSIL2A.xml"]
    assert [image.name for image in find_images(paths, BANDS)] == ["c0", safe.stem]
    assert [image.name for image in find_images([path, path.parent, path], BANDS, kind="raster")] == ["x"]


def test_masks_of_an_earlier_run_are_not_taken_for_rasters(tmp_path):
    write(tmp_path / "x.tif", STACKED[:4], descriptions=BANDS)
    files = ["x.tif", "probabilities/x.tif"]
    for file in files:
        write(tmp_path / "masks" / file, np.ones((SIZE, SIZE), np.uint8))
    assert len(find_images([tmp_path], BANDS, kind="raster")) == 3
    for file in files:
        (tmp_path / "masks" / file).unlink()
    reserve(tmp_path / "masks", files)
    for file in files:
        write(tmp_path / "masks" / file, np.ones((SIZE, SIZE), np.uint8))
    assert [image.place for image in find_images([tmp_path], BANDS, kind="raster")] == [str(tmp_path)]


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    chip(tmp_path / "c0")
    assert find_images(["~/c0"], BANDS) == find_images([tmp_path / "c0"], BANDS)


def test_a_mask_has_the_exact_name_of_its_image(tmp_path):
    chip(tmp_path / "my chip (é)")
    write(tmp_path / "a & b.tif", STACKED)
    for i, band in enumerate(BANDS):
        write(tmp_path / f"my image/at dawn_{band}.tif", stored(i))
    assert [image.name for image in find_images([tmp_path], BANDS)] == ["my chip (é)", "at dawn"]
    assert find_images([tmp_path], BANDS, kind="raster")[0].name == "a & b"
    assert find_images([tmp_path / "a & b.tif"], BANDS)[0].name == "a & b"


def test_the_reader_can_be_chosen(tmp_path):
    for i, band in enumerate(BANDS):
        write(tmp_path / "c0" / f"{band}.tif", (stored(i) / 10_000).astype(np.float32))
    with pytest.raises(ChipError, match="is float32, expected uint16"):
        read(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, kind="bands")[0], stored(0))
    write(tmp_path / "r" / "a.tif", STACKED[:4], descriptions=BANDS)
    write(tmp_path / "r" / "b.tif", STACKED[:4], descriptions=BANDS)
    assert [image.name for image in find_images([tmp_path / "r"], BANDS, kind="raster")] == ["a", "b"]
    (tmp_path / "a.data").symlink_to(tmp_path / "r" / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.data", kind="raster"), STACKED[:4])


def test_numbers_of_bands_are_for_rasters_only(tmp_path):
    chip(tmp_path / "c0")
    with pytest.raises(
        ValueError, match="band numbers apply only to rasters with several bands, but c0 is read as chip"
    ):
        find_images([tmp_path], BANDS, numbers=[1, 2, 3, 4])


def test_a_band_is_not_taken_twice_and_one_of_several_files_is_no_raster(tmp_path):
    path = write(tmp_path / "x_B02.tif", STACKED[0])
    with pytest.raises(ValueError, match="band numbers 1, 2, 2, 3 name a band twice"):
        find_images([path], BANDS, numbers=[1, 2, 2, 3])
    with pytest.raises(ChipError, match=r"x_B02\.tif has a single band: name the folder with the files of all bands"):
        read(path)


def test_windows_can_be_read_by_many_threads(tmp_path):
    safe, pixels = write_safe(tmp_path, offsets=dict.fromkeys(BANDS, -1000), size=64)
    expected = np.stack([shifted(pixels[band], -1000) for band in BANDS])
    windows = [(slice(r, r + 16), slice(c, c + 16)) for r in range(0, 64, 16) for c in range(0, 64, 16)] * 4
    (found,) = find_images([safe], BANDS)
    with found.open() as image, ThreadPoolExecutor(8) as threads:
        for window, part in zip(windows, threads.map(lambda window: image.read(*window), windows), strict=True):
            np.testing.assert_array_equal(part, expected[:, *window])


def test_each_image_says_in_one_line_what_was_done(tmp_path, caplog):
    caplog.set_level("INFO", logger="cloudcover")
    safe, _ = write_safe(tmp_path, offsets=dict.fromkeys(BANDS, -1000))
    read(safe)
    chip(tmp_path / "c0")
    read(tmp_path / "c0")
    (line,) = [record.message for record in caplog.records]
    assert line == (
        f"{safe.stem}: Sentinel-2 L2A, baseline 05.09, quantification 10000, offset -1000: "
        "DN by scale=0.0001,offset=-0.1"
    )


def test_an_offset_that_nothing_states_is_doubtful(tmp_path):
    for i, band in enumerate(BANDS):
        write(tmp_path / f"x_{band}.jp2", stored(i, low=1010)[6:] + 1000 * (i > 5))
    (found,) = find_images([tmp_path], BANDS)
    with found.open() as image:
        assert image.doubtful
        assert suspected_offset(image.read(slice(0, SIZE - 6), WHOLE), 0)
