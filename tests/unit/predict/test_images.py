"""Folders of chips to masks on disk, by threads and by processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from cloudcover.config.sections import ModelParams
from cloudcover.data.chips import read_mask
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict import chips as predict_chips
from cloudcover.predict.images import UnusableImagesError, predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.rasters.find import Found, find_images
from cloudcover.rasters.layers import Request
from helpers.layouts import BANDS, files_below, make_layout, write_chips, write_tif
from helpers.networks import ENCODER, card


def test_masks_are_written_on_the_grid_of_the_chips_with_255_where_there_is_no_data(bright, tmp_path):
    pixels = np.full((50, 70), 1000, np.uint16)
    pixels[:, 35:] = 9000
    pixels[0] = 0
    for band in BANDS:
        write_tif(tmp_path / "scenes" / "odd" / f"{band}.tif", pixels, x=399_960, crs="EPSG:32736")
    chips = find_images([tmp_path / "scenes"], BANDS)
    (path,) = predict_images(Predictor([bright()]), chips, Outputs(tmp_path / "masks"))
    with rasterio.open(path) as mask:
        values = mask.read(1)
        assert (mask.crs, mask.transform.c, mask.nodata, mask.dtypes[0]) == ("EPSG:32736", 399_960, 255, "uint8")
    assert (values[0] == 255).all()
    assert (values[1:, :35] == 0).all()
    assert (values[1:, 35:] == 1).all()


def test_a_real_network_predicts_chips_of_any_size(tmp_path):
    model = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(tmp_path / "m", build_model(model, BANDS), card())
    make_layout(tmp_path / "set", chips=2, size=80, unlabelled=0)
    written = predict_images(
        Predictor([tmp_path / "m"]), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out")
    )
    with rasterio.open(written[0]) as mask:
        assert mask.shape == (80, 80)
        assert set(np.unique(mask.read(1))) <= {0, 1}


def test_chips_of_many_sizes_are_predicted_in_order_and_all_written(bright, tmp_path):
    sizes = [64, 64, 96, 64, 40]
    for number, size in enumerate(sizes):
        write_chips(tmp_path / "set", [f"c{number}"], (size, size))
    written = predict_images(
        Predictor([bright()], batch=2), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out")
    )
    assert [path.name for path in written] == [f"c{number}.tif" for number in range(5)]
    for path, size in zip(written, sizes, strict=True):
        with rasterio.open(path) as mask:
            assert mask.shape == (size, size)


def test_the_folder_that_one_stands_in_is_a_chip_with_a_name(bright, tmp_path, monkeypatch):
    monkeypatch.chdir(write_chips(tmp_path / "set", ["here"]) / "here")
    (mask,) = predict_images(Predictor([bright()]), find_images([Path()], BANDS), Outputs(tmp_path / "out"))
    assert mask.name == "here.tif"


@pytest.mark.parametrize("suffix", [".TIF", ".tiff", ".TIFF"])
def test_chips_are_found_by_either_suffix_in_any_case_and_through_links(bright, tmp_path, suffix):
    chips = write_chips(tmp_path / "set", ["c0", "c1", "c2"])
    for path in sorted(chips.rglob("*.tif")):
        path.rename(path.with_suffix(suffix))
    apart = write_chips(tmp_path / "apart", ["c0"])
    (apart / "c0").rename(apart / "c9")
    (chips / "c9").symlink_to(apart / "c9")
    (chips / "loop").symlink_to(chips)
    (chips / ".trash").mkdir()
    (chips / "c2").rename(chips / ".trash/c2")
    predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert files_below(tmp_path / "out") == ["c0.tif", "c1.tif", "c9.tif"]


def test_processes_write_the_masks_that_threads_write(bright, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(11):
        size = 64 if number != 5 else 160  # more than the memory of a batch
        for band in BANDS:
            pixels = rng.integers(0, 9000, (size, size)).astype(np.uint16)
            write_tif(tmp_path / "set" / f"c{number:02d}" / f"{band}.tif", pixels)
    (tmp_path / "set" / "c07" / "B08.tif").unlink()
    chips = find_images([tmp_path / "set"], BANDS)
    predictor = Predictor([bright()], "flips", batch=3)
    for name, number in (("threads", 0), ("processes", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(predict_chips, "_processes", lambda *_, number=number: number)
            with pytest.raises(UnusableImagesError, match=r"1 of 11 images.*\n  c07: B08: "):
                predict_images(predictor, chips, Outputs(tmp_path / name))
    written = [sorted((tmp_path / name).glob("*.tif")) for name in ("threads", "processes")]
    assert len(written[0]) == 10
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def test_a_killed_process_ends_the_run_with_whole_masks_and_the_next_completes_them(bright, tmp_path, monkeypatch):
    folder = write_chips(tmp_path / "set", [f"c{number:02d}" for number in range(40)])
    chips, out, finished = find_images([folder], BANDS), tmp_path / "out", threading.Event()

    def kill_one():
        while len(multiprocessing.active_children()) < 2 and not finished.is_set():
            time.sleep(0.01)
        while not list(out.glob("*.tif")) and not finished.is_set():
            time.sleep(0.001)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(predict_chips, "_processes", lambda *_: 2)
            with pytest.raises(BrokenProcessPool):
                predict_images(Predictor([bright()], batch=2), chips, Outputs(out))
    finally:
        finished.set()
        killer.join()
    for path in out.glob("[!.]*.tif"):
        assert read_mask(path, "mask")[0].shape == (64, 64)
    assert len(predict_images(Predictor([bright()]), chips, Outputs(out))) == 40
    assert not [path for path in out.iterdir() if ".part" in path.name]


def test_a_hundred_thousand_names_are_compared_in_seconds(tmp_path):
    names = [Found(f"c{i:06d}", "chip", f"chips/c{i:06d}", "", Request(tuple(BANDS))) for i in range(100_000)]
    begin = time.process_time()
    with pytest.raises(ValueError, match="several images are called c000000"):
        predict_images(SimpleNamespace(card=None), [*names, names[0]], Outputs(tmp_path / "out"))
    assert time.process_time() - begin < 10
