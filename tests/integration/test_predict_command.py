"""`cloudcover predict`: its options, its files, and what remains after a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from PIL import Image as Pillow

from cloudcover.cli import main
from cloudcover.cli.predict import KINDS
from cloudcover.config.sections import ModelParams
from cloudcover.data import tables
from cloudcover.data.ownership import FolderError
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.images import _refuse_replaced, predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.polygons import read_polygons
from cloudcover.predict.predictor import Predictor
from cloudcover.predict.summary import Summary
from cloudcover.rasters.find import Kind, find_images
from helpers.layouts import BANDS, files_below, make_layout, pixels_of
from helpers.networks import ENCODER, card
from helpers.scenes import scene, write_chip, write_raster
from helpers.users import NOBODY, error_as_nobody, folder_of_nobody

ELSEWHERE = json.dumps(
    {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "EPSG:1"}},
        "features": [
            {
                "type": "Feature",
                "properties": {"name": "a"},
                "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
            }
        ],
    }
)


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a model of random weights, `model`, and a set of chips, `set`."""
    root = tmp_path_factory.mktemp("outputs")
    params = ModelParams.model_validate({"encoder": ENCODER, "decoder_channels": [16, 16, 8, 8, 8]})
    save_model(root / "model", build_model(params, BANDS), card())
    make_layout(root / "set", chips=3, size=64, unlabelled=0)
    return root


def predict(trained: Path, out: Path, *options: object, source: Path | None = None):
    result = run("predict", source or trained / "set", "--model", trained / "model", "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result


def test_the_threshold_of_the_command_replaces_the_models(trained, tmp_path):
    predict(trained, tmp_path / "p", "--probabilities")
    codes = pixels_of(tmp_path / "p/probabilities/c000.tif")
    threshold = float(np.median(codes)) / 254
    predict(trained, tmp_path / "t", "--threshold", threshold)
    mask = pixels_of(tmp_path / "t/c000.tif")
    surely = np.abs(codes / 254 - threshold) > 1 / 254
    np.testing.assert_array_equal((mask == 1)[surely], (codes / 254 > threshold)[surely])
    for value in ("0", "1", "high"):
        result = run("predict", trained / "set", "--model", trained / "model", "--out", tmp_path, "--threshold", value)
        assert result.exit_code == 2


def test_masks_of_other_options_are_not_skipped(trained, tmp_path, caplog):
    """With `--skip-existing`, the files are those of a run without it."""
    caplog.set_level("INFO", logger="cloudcover")
    out, options = tmp_path / "out", ("--probabilities", "--skip-existing")
    predict(trained, out, *options)
    before = {path: path.read_bytes() for path in out.rglob("*.tif")}
    for changed in (("--threshold", 0.1), ("--buffer", 20), ("--resolution", 20), ("--tta", "hflip"), ()):
        caplog.clear()
        predict(trained, out, *options, *changed)
        assert "3 masks of other models or options are made again: c000, c001, c002" in caplog.messages
        caplog.clear()
        predict(trained, out, *options, *changed)
        assert caplog.messages[0] == "3 of 3 images already have their masks"
    assert before == {path: path.read_bytes() for path in before}


def test_masks_of_names_with_spaces_are_recorded_skipped_and_replace_no_file(trained, tmp_path, caplog):
    caplog.set_level("INFO", logger="cloudcover")
    write_chip(tmp_path / "set/my chip", scene(64, 64))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/my chip.tif").write_text("mine")
    words = ("predict", tmp_path / "set", "--model", trained / "model", "--out", tmp_path / "out", "--skip-existing")
    assert "my chip.tif was not made by cloudcover" in run(*words).output
    assert (tmp_path / "out/my chip.tif").read_text() == "mine"
    (tmp_path / "out/my chip.tif").unlink()
    assert run(*words).exit_code == 0
    assert run(*words).exit_code == 0
    assert "1 of 1 images already have their masks" in caplog.messages


def test_images_of_the_same_name_are_named_by_their_places(trained, tmp_path):
    for folder in ("a", "b"):
        write_chip(tmp_path / folder / "c0", scene(64, 64))
    result = run("predict", tmp_path, "--model", trained / "model", "--out", tmp_path / "out")
    assert f"called c0 ({tmp_path}/a/c0 and {tmp_path}/b/c0)" in " ".join(result.output.split())


def test_metres_of_a_grid_in_degrees_are_refused_by_name(trained, tmp_path):
    write_chip(tmp_path / "set/far", scene(64, 64), crs="EPSG:4326", transform=Affine(1e-4, 0, 13, 0, -1e-4, 52))
    words = ("predict", trained / "set", tmp_path / "set", "--model", trained / "model", "--out", tmp_path / "out")
    for option in (("--buffer", 20), ("--min-area", 500), ("--resolution", "auto")):
        result = run(*words, *option)
        assert result.exit_code == 1
        assert "1 of 4 images have no mask" in result.output
        assert "far: has the CRS EPSG:4326, which is not in metres: reproject it" in result.output
    assert len(list((tmp_path / "out").glob("*.tif"))) == 3
    assert run(*words).exit_code == 0


# --- skipping -------------------------------------------------------------------------------------------------------


def test_what_is_done_is_skipped_and_stays_in_the_summary(trained, tmp_path, caplog):
    out = tmp_path / "out"
    predict(trained, out, "--summary", tmp_path / "first.csv")
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("*.tif")}
    (out / "c001.tif").unlink()
    with caplog.at_level("INFO"):
        predict(trained, out, "--skip-existing", "--summary", tmp_path / "second.csv")
    after = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("*.tif")}
    assert "2 of 3 images already have their masks" in caplog.text
    assert {name for name in before if before[name] == after[name]} == {"c000.tif", "c002.tif"}
    assert (tmp_path / "first.csv").read_text() == (tmp_path / "second.csv").read_text()
    predict(trained, out, "--skip-existing", "--preview")  # the previews are missing
    assert files_below(out) == sorted([*before, *(f"previews/c00{i}.png" for i in range(3))])


def test_skipping_does_not_take_files_of_others_for_masks(trained, tmp_path):
    (tmp_path / "c000.tif").write_bytes(b"mine")
    result = run("predict", trained / "set", "--model", trained / "model", "--out", tmp_path, "--skip-existing")
    assert result.exit_code == 1
    assert "c000.tif was not made by cloudcover and would be overwritten" in result.output
    assert (tmp_path / "c000.tif").read_bytes() == b"mine"


@pytest.mark.parametrize("damage", ["empty", "short", "hole", "preview"])
def test_damaged_files_of_an_earlier_run_are_made_again(trained, tmp_path, caplog, damage):
    caplog.set_level("INFO", logger="cloudcover")
    options = ("--skip-existing", "--probabilities", "--preview", "--summary", tmp_path / "masks.csv")
    predict(trained, tmp_path / "out", *options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.name != ".cloudcover"}
    names = {"empty": "probabilities/c001.tif", "preview": "previews/c001.png"}
    path = tmp_path / "out" / names.get(damage, "c001.tif")
    size = path.stat().st_size
    if damage == "hole":
        with path.open("rb+") as file:
            file.seek(size - 40)
            file.write(bytes(40))
    else:
        os.truncate(path, 0 if damage == "empty" else size - 40)
    caplog.clear()
    predict(trained, tmp_path / "out", *options)
    assert "1 masks with damaged files are made again: c001" in caplog.messages
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(("kind", "skip"), [("raster", ["--skip-existing"]), ("text", []), ("link", [])])
def test_a_file_that_has_replaced_a_mask_is_not_overwritten(trained, tmp_path, kind, skip):
    """A mask that somebody has corrected, for example."""
    predict(trained, tmp_path / "out", "--probabilities")
    path = tmp_path / "out" / ("probabilities/c001.tif" if kind == "text" else "c001.tif")
    path.unlink()
    if kind == "raster":
        write_raster(path, np.ones((1, 64, 64), np.uint8))
        with rasterio.open(path, "r+") as file:
            file.update_tags(TIFFTAG_SOFTWARE="another program")
    elif kind == "text":
        path.write_text("mine")
    else:
        write_raster(tmp_path / "mine.tif", np.ones((1, 64, 64), np.uint8))
        path.symlink_to("../mine.tif")
    before = path.read_bytes()
    words = ("predict", trained / "set", "--model", trained / "model", "--out", tmp_path / "out", "--probabilities")
    result = run(*words, *skip)
    assert result.exit_code == 1
    assert f"{path} lacks the tags of the mask that cloudcover has written there" in result.output
    assert path.read_bytes() == before
    assert path.is_symlink() == (kind == "link")
    path.unlink()
    assert run(*words, *skip).exit_code == 0


def test_masks_and_summaries_that_are_read_only_are_not_replaced(trained):
    with folder_of_nobody(0o700) as folder:
        paths = folder / "c000.tif", folder / "masks.csv"
        predictor, images = Predictor([trained / "model"], device="cpu"), find_images([trained / "set"], BANDS)
        predict_images(predictor, images, Outputs(folder), summary=Summary(paths[1]))
        before = [path.read_bytes() for path in paths]
        for path in folder.iterdir():
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        for path, work in (
            (paths[0], lambda: _refuse_replaced(images[0], Outputs(folder))),
            (paths[1], lambda: Summary(paths[1])),
        ):
            assert error_as_nobody(work) == "no error"
            path.chmod(0o444)
            assert re.match(r"(FolderError|PermissionError): .*read-only: `chmod u\+w`", error_as_nobody(work))
        assert [path.read_bytes() for path in paths] == before


@pytest.mark.parametrize("name", ["c001.tif", ".cloudcover", "previews/c000.png", "probabilities", "."])
def test_a_summary_does_not_take_the_place_of_another_output(trained, tmp_path, name):
    (tmp_path / "link").symlink_to("out")
    words = ("predict", trained / "set", "--model", trained / "model", "--out", tmp_path / "out", "--preview")
    path = tmp_path / "link" / name if name != "." else tmp_path / "out"
    result = run(*words, "--summary", path)
    assert result.exit_code == 1
    assert "is another output of this run: choose another --summary" in result.output
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("content", [b"", b"mine", b"x" * 200_000, b"image,polygon\n", b"\xff\0\n"])
def test_a_summary_replaces_no_other_file_and_leaves_links(trained, tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    words = ("predict", trained / "set", "--model", trained / "model", "--out", tmp_path / "out")
    result = run(*words, "--summary", path)
    assert result.exit_code == 1
    assert "exists and is not a table of shares of masks: choose another name" in result.output
    assert path.read_bytes() == content
    (tmp_path / "link.csv").symlink_to("later.csv")
    for _ in range(2):
        assert run(*words, "--summary", tmp_path / "link.csv").exit_code == 0
    assert (tmp_path / "link.csv").is_symlink()
    later = tmp_path / "later.csv"
    assert len(tables.SHARES.read(later)) == 3
    later.write_text(f"\ufeff{later.read_text()}", newline="\r\n")  # as a spreadsheet saves it
    assert run(*words, "--summary", later).exit_code == 0


def test_a_named_pipe_is_no_earlier_summary(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FolderError, match="is not a table of shares"):
        Summary(tmp_path / "pipe")


def test_a_folder_in_the_place_of_the_record_is_named(trained, tmp_path):
    (tmp_path / "out/.cloudcover").mkdir(parents=True)
    result = run("predict", trained / "set", "--model", trained / "model", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path}/out/.cloudcover is not a file, but needed as the list of cloudcover's files" in result.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not valid JSON"),
        ("[]", "contains no polygon"),
        ('{"type": "FeatureCollection", "features": []}', "contains no polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "feature 1 is Point, expected Polygon or MultiPolygon"),
        ('{"type": "Feature", "geometry": null}', "feature 1 is no geometry"),
        (ELSEWHERE, "its CRS 'EPSG:1' is unknown"),
    ],
)
def test_a_file_that_is_no_geojson_of_polygons_is_refused(trained, tmp_path, text, reason):
    path = tmp_path / "areas.geojson"
    path.write_text(text)
    words = ("predict", trained / "set", "--model", trained / "model", "--out", tmp_path / "out", "--polygons", path)
    result = run(*words, "--summary", tmp_path / "masks.csv")
    assert result.exit_code == 1
    assert str(path) in result.output
    assert reason in result.output
    assert not (tmp_path / "out").exists()
    assert run(*words).exit_code == 2  # without a table for the shares


@pytest.mark.parametrize(
    "coordinates",
    [
        [],
        [[["a", 1], [2, 3], [4, 5], ["a", 1]]],
        [[[1, 2]]],
        7,
        [None],
        [["ab"]],
        None,
        [[[0, 0], [0, 1], [1, 1], [1, 0]]],
    ],
)
def test_polygons_without_rings_of_numbers_are_refused_with_file_and_feature(tmp_path, coordinates):
    (tmp_path / "a.json").write_text(json.dumps({"type": "Polygon", "coordinates": coordinates}))
    with pytest.raises(ValueError, match=r"a\.json: feature 1 is no valid Polygon"):
        read_polygons(tmp_path / "a.json")


@pytest.mark.parametrize("features", [None, {}, "x", 3])
def test_features_that_are_no_list_are_refused_with_the_file(tmp_path, features):
    (tmp_path / "a.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(ValueError, match=r"a\.json: its features are not a list"):
        read_polygons(tmp_path / "a.json")


@pytest.mark.parametrize("odd", [None, [], [1], "x", 3])
def test_properties_that_are_no_object_are_left_out(tmp_path, odd):
    ring = [[0, 0], [0, 1], [1, 1], [0, 0]]
    feature = {"type": "Feature", "properties": odd, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    collection = {"type": "FeatureCollection", "features": [feature], "crs": {"type": "name", "properties": odd}}
    (tmp_path / "a.json").write_text(json.dumps(collection))
    found = read_polygons(tmp_path / "a.json")
    assert [area.name for area in found.areas] == ["1"]
    assert found.crs == "EPSG:4326"


@pytest.mark.parametrize("option", ["--threshold", "--buffer", "--min-area", "--resolution"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_of_the_command_are_finite(tmp_path, option, value):
    result = CliRunner().invoke(main, ["predict", str(tmp_path), "--out", str(tmp_path / "out"), option, value])
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': {value} is not" in " ".join(result.output.replace("│", "").split())


def test_the_summary_of_the_command_has_the_shares_of_the_masks(trained, tmp_path):
    predict(trained, tmp_path / "out", "--summary", tmp_path / "s/masks.csv", "--buffer", 20)
    table = pd.read_csv(tmp_path / "s/masks.csv", keep_default_na=False).set_index("image")
    assert table.index.tolist() == ["c000", "c001", "c002"]
    for name, row in table.iterrows():
        mask = pixels_of(tmp_path / f"out/{name}.tif")
        assert row["cloud_share"] == (mask == 1).mean()


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_knows_every_reader():
    assert tuple(KINDS) == get_args(Kind)


def test_the_command_masks_a_raster_by_the_numbers_of_its_bands(trained, tmp_path):
    dn = scene(64, 64)
    write_chip(tmp_path / "set/mosaic", dn)
    write_raster(tmp_path / "mosaic.tif", dn[[3, 0, 1, 2]])
    predict(trained, tmp_path / "chip", source=tmp_path / "set")
    predict(trained, tmp_path / "raster", "--bands", "2,3,4,1", source=tmp_path / "mosaic.tif")
    assert (tmp_path / "chip/mosaic.tif").read_bytes() == (tmp_path / "raster/mosaic.tif").read_bytes()
    words = ("predict", tmp_path / "mosaic.tif", "--model", trained / "model", "--out", tmp_path / "bad")
    assert "give one number from 1 to 4 for each" in run(*words, "--bands", "2,3,4,5").output
    for value, reason in (
        ("2,3", "--bands names 2 bands, but the model needs B02"),
        ("a", "is not a list of band numbers"),
    ):
        result = run(*words, "--bands", value)
        assert result.exit_code == 2
        assert reason in result.output
    assert run(*words, "--as", "stac", "--bands", "1,2,3,4").exit_code == 1


def test_the_command_takes_the_scale_of_files_that_declare_none(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves `~` in `--out=~/x`
    dn = scene(64, 64)
    write_chip(tmp_path / "set/x", dn)
    write_chip(tmp_path / "half/x", (dn + 1) // 2)
    write_raster(tmp_path / "x.tif", (dn + 1) // 2 * 2.0)
    for name, options in (
        ("set", ()),
        ("half", ("--scale", 0.0002)),
        ("x.tif", ("--scale", 0.0001, "--bands", "1,2,3,4")),
    ):
        assert f"1 mask in {tmp_path}" in predict(trained, f"~/out-{name}", *options, source=tmp_path / name).output
    expected = pixels_of(tmp_path / "out-x.tif/x.tif")
    np.testing.assert_array_equal(pixels_of(tmp_path / "out-half/x.tif"), expected)
    assert (pixels_of(tmp_path / "out-set/x.tif") != expected).mean() < 0.01


# --- bad ends -------------------------------------------------------------------------------------------------------


def test_one_bad_chip_keeps_no_other_from_its_files(trained, tmp_path):
    for name in ("a", "b", "c"):
        write_chip(tmp_path / "set" / name, scene(64, 64))
    (tmp_path / "set/b/B03.tif").write_bytes((tmp_path / "set/b/B03.tif").read_bytes()[:3000])
    words = ("predict", tmp_path / "set", "--model", trained / "model", "--out", tmp_path / "out")
    result = run(*words, "--preview", "--probabilities", "--summary", tmp_path / "masks.csv")
    assert result.exit_code == 1
    assert "1 of 3 images have no mask" in result.output
    assert "\n  b: B03: " in result.output
    assert files_below(tmp_path / "out") == sorted(
        f"{folder}{name}.{suffix}"
        for name in "ac"
        for folder, suffix in (("", "tif"), ("probabilities/", "tif"), ("previews/", "png"))
    )
    assert tables.SHARES.read(tmp_path / "masks.csv")["image"].tolist() == ["a", "c"]


@pytest.mark.parametrize("pages", [0, 6, 12])
def test_a_full_disk_is_an_error_and_leaves_whole_files(disk, trained, tmp_path, pages):
    dn = np.random.default_rng(0).integers(1, 9000, (4, 600, 600)).astype(np.uint16)
    write_chip(tmp_path / "set/noise", dn)
    disk.leave(pages)
    words = ("predict", tmp_path / "set", "--model", trained / "model", "--out", disk.path / "out")
    result = run(*words, "--preview", "--probabilities")
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert str(disk.path / "out") in result.output
    disk.assert_whole()
    assert not (disk.path / "out/noise.tif").exists()


PROGRAM = """
import sys
from cloudcover.cli import main
from cloudcover.predict import chips
number = int(sys.argv.pop(1))
chips._processes = lambda *_: number
main(prog_name="cloudcover")
"""


@pytest.mark.parametrize(("processes", "number", "side"), [(0, 30, 600), (2, 150, 64)])
def test_ctrl_c_leaves_no_half_file(trained, tmp_path, processes, number, side):
    """A terminal sends it to the processes of a prediction as well."""
    for chip in range(number):
        write_chip(tmp_path / f"set/c{chip}", scene(side, side, chip % 3))
    out = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, str(processes), "predict", tmp_path / "set", "--out", out, "--batch", "1"]
    options = ["--model", trained / "model", "--preview", *(["--probabilities"] if not processes else [])]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while process.poll() is None and not list(out.glob("*.tif")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert "Aborted!" in output
    assert "Traceback" not in output
    masks = list(out.glob("*.tif"))
    assert 0 < len(masks) < number
    assert not [path for path in out.rglob("*") if ".part" in path.name]
    for path in (*masks, *out.glob("probabilities/*.tif")):
        assert pixels_of(path).shape == (side, side)
    for path in out.glob("previews/*.png"):
        Pillow.open(path).verify()
