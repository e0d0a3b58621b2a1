"""Chips that are not as expected: named, while all others are done."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from cloudcover.cli import main
from cloudcover.data.ownership import owned
from cloudcover.predict.images import UnusableImagesError, _reserve, predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import NotFiniteError, Predictor
from cloudcover.rasters.find import find_images
from helpers.layouts import BANDS, files_below, write_chips, write_tif
from helpers.paths import SHARED


def test_chips_of_the_same_name_and_folders_without_chips_are_refused(bright, tmp_path):
    for part in ("a", "b"):
        write_chips(tmp_path / part, ["chip"])
    chips = find_images([tmp_path / "a", tmp_path / "b"], BANDS)
    with pytest.raises(ValueError, match=r"several images are called chip \(.*a/chip and .*b/chip\): "):
        predict_images(Predictor([bright()]), chips, Outputs(tmp_path / "masks"))
    (tmp_path / "masks").mkdir()
    with pytest.raises(FileNotFoundError, match="contains no image"):
        find_images([tmp_path / "masks"], BANDS)


@pytest.mark.parametrize("names", [("chip", "CHIP"), ("caf\u00e9", "cafe\u0301")])
def test_images_whose_masks_have_one_name_on_some_disks_are_refused(tmp_path, names):
    """Such as those of Windows and macOS; a summary would refuse them as well, at the end."""
    images = find_images([write_chips(tmp_path / "set", names)], BANDS)
    with pytest.raises(ValueError, match=r"several images are called .* on some disks also if only the case differs"):
        _reserve(images, Outputs(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_chips_that_cannot_be_used_are_listed_at_the_end_and_the_others_have_masks(bright, tmp_path):
    write_chips(tmp_path / "set", "abcde")
    (tmp_path / "set" / "b" / "B04.tif").unlink()
    (tmp_path / "set" / "d" / "B02.tif").write_bytes(b"no image")
    write_tif(tmp_path / "set" / "e" / "B08.tif", np.full((32, 64), 9000, np.uint16))
    chips = find_images([tmp_path / "set"], BANDS)
    with pytest.raises(UnusableImagesError) as caught:
        predict_images(Predictor([bright()], batch=2), chips, Outputs(tmp_path / "out"))
    text = str(caught.value)
    assert text.startswith("3 of 5 images have no mask")
    assert "\n  b: B04: " in text
    assert "B04.tif is missing" in text
    assert "\n  d: B02: " in text
    assert "\n  e: B08: is 32 x 64 pixels, expected 64 x 64" in text
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tif")) == ["a.tif", "c.tif"]


def test_a_policy_that_does_not_fit_a_chip_names_it(bright, tmp_path):
    write_chips(tmp_path / "set", "a")
    write_chips(tmp_path / "set", ["wide"], (32, 64))
    with pytest.raises(UnusableImagesError, match="wide: TTA policy d4 needs square chips, got 32 x 64"):
        predict_images(Predictor([bright()], "d4"), find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out"))
    assert (tmp_path / "out" / "a.tif").exists()


def test_a_chip_whose_name_is_no_text_is_named_and_all_others_are_done(bright, tmp_path):
    write_chips(tmp_path / "set", ["a", "b"])
    try:
        (tmp_path / "set/a").rename(tmp_path / "set" / os.fsdecode(b"a\xff"))
    except OSError:
        pytest.skip("the file system only takes names that are text")
    words = ["predict", tmp_path / "set", "--model", bright(), "--out", tmp_path / "out", "--device", "cpu"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 1
    assert "B02.tif has a name that is not valid text, so GDAL cannot open it: rename it" in result.output
    assert (tmp_path / "out/b.tif").exists()


def test_masks_have_the_names_of_their_chips_and_spare_files_of_others(bright, tmp_path, caplog):
    names = ["my chip", "a,b (1)", "50%{}", "~x"]
    write_chips(tmp_path / "set", [*names, "c\nd"])
    words = ["predict", tmp_path / "set", "--model", bright(), "--out", tmp_path / "out", "--device", "cpu"]
    for name in names:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{name}.tif").write_text("mine")
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert "was not made by cloudcover and would be overwritten" in result.output
        assert (tmp_path / "out" / f"{name}.tif").read_text() == "mine"
        shutil.rmtree(tmp_path / "out")
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    made = {f"{name}.tif" for name in [*names, "c_d"]}
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == made == owned(tmp_path / "out")
    CliRunner().invoke(main, [str(word) for word in [*words, "--skip-existing"]])
    assert "5 of 5 images already have their masks" in caplog.text


@pytest.mark.parametrize("band", BANDS)
def test_a_chip_without_a_band_is_named_and_all_others_are_done(bright, tmp_path, band):
    chips = write_chips(tmp_path / "set", ["c0", "c1", "c2"])
    (chips / "c0" / f"{band}.tif").unlink()
    with pytest.raises(UnusableImagesError, match=rf"1 of 3 images have no mask.*\n  c0: .*{band}\.tif is missing"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert files_below(tmp_path / "out") == ["c1.tif", "c2.tif"]


def test_the_given_chip_without_its_first_band_is_named():
    if not (SHARED / "failing-inputs/missingfirst").exists():
        pytest.skip("shared/failing-inputs is not beside the project")
    assert [chip.name for chip in find_images([SHARED / "failing-inputs/missingfirst"], BANDS)] == ["c0", "c1"]


def test_a_chip_of_another_format_is_named_with_what_to_do(bright, tmp_path):
    chips = write_chips(tmp_path / "set", ["c0", "c1", "c2"])
    for band in BANDS:
        (chips / "c1" / f"{band}.tif").rename(chips / "c1" / f"{band}.png")
    with pytest.raises(UnusableImagesError, match=r"c1: .*but B02\.png is there: .*`gdal_translate` converts it"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert files_below(tmp_path / "out") == ["c0.tif", "c2.tif"]


def test_a_small_file_of_a_huge_image_is_named_before_its_pixels_are_read(bright, tmp_path):
    chips = write_chips(tmp_path / "set", ["c0", "c1", "c2"])
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 60_000, "width": 60_000, "tiled": True}
    for band in BANDS:
        with rasterio.open(chips / "c1" / f"{band}.tif", "w", **profile, compress="deflate", SPARSE_OK=True):
            pass
    with pytest.raises(UnusableImagesError, match=r"c1: B02: is 60000 x 60000 pixels, more than"):
        predict_images(Predictor([bright()]), find_images([chips], BANDS), Outputs(tmp_path / "out"))
    assert files_below(tmp_path / "out") == ["c0.tif", "c2.tif"]


@pytest.mark.parametrize("level", ["nan", "inf", "-inf"])
def test_weights_that_are_no_numbers_are_refused_with_model_and_chip(bright, tmp_path, level):
    folders = [bright(0.5, "good"), bright(float(level), "bad")]
    chips = find_images([write_chips(tmp_path / "set", "ab")], BANDS)
    with pytest.raises(NotFiniteError, match=r"chip a: the model .*/bad predicts probabilities that are not finite"):
        predict_images(Predictor(folders), chips, Outputs(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.tif"))
