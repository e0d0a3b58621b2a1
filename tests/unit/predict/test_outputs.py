"""What a prediction writes: masks, probabilities, previews, tables, and what is left after a bad end."""

from __future__ import annotations

import json
import os
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
from scipy.ndimage import binary_dilation, zoom

from cloudcover.cli import main
from cloudcover.cli.predict import KINDS
from cloudcover.config.sections import ModelParams
from cloudcover.data import tables
from cloudcover.data.colours import PREDICTION_COLOUR
from cloudcover.data.grid import Grid
from cloudcover.data.ownership import FolderError
from cloudcover.masks.codec import decode_soft_labels
from cloudcover.models.build import build_model
from cloudcover.models.folder import save_model
from cloudcover.predict.area import add_buffer, remove_small
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.summary import Summary, read_polygons
from cloudcover.rasters.find import Kind, find_images
from helpers.layouts import BANDS, make_layout
from helpers.networks import ENCODER, Blurred, Brightness, card
from helpers.scenes import NORTH_UP, InMemory, scene, write_chip, write_raster

MASK = {0: (38, 50, 64, 255), 1: (240, 244, 248, 255), 255: (128, 128, 128, 0)}


def read(path: Path):
    with rasterio.open(path) as image:
        return image.read(1)


def texts(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file())


# --- GeoTIFFs -------------------------------------------------------------------------------------------------------


def test_a_large_mask_is_a_cog_with_overviews_colours_nodata_and_tags(model, tmp_path):
    dn = scene(1300, 700)
    dn[:, :100] = 0
    predictor = model(Blurred(), threshold=0.4)
    (path,) = predict_images(predictor, [InMemory.of(dn)], Outputs(tmp_path, buffer_m=25, min_area_m2=1000))
    with rasterio.open(path) as mask:
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert mask.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert mask.block_shapes == [(512, 512)]
        assert mask.overviews(1) == [2, 4]
        assert mask.nodata == 255
        assert {value: mask.colormap(1)[value] for value in MASK} == MASK
        tags = mask.tags()
        half = mask.read(1, out_shape=(650, 350))
        assert set(np.unique(mask.read(1))) == {0, 1, 255}
    assert set(np.unique(half)) == {0, 1, 255}  # overviews hold no means of them
    weights = predictor.card.weights_sha256[:12]
    assert tags["CLOUDCOVER_MODEL"] == f"model@{weights}"
    assert tags["TIFFTAG_SOFTWARE"].startswith("cloudcover ")
    expected = {
        "CLOUDCOVER_THRESHOLD": "0.4", "CLOUDCOVER_TTA": "none", "CLOUDCOVER_BUFFER_M": "25",
        "CLOUDCOVER_MIN_AREA_M2": "1000", "CLOUDCOVER_SCALE": "none: values are reflectance x 10,000",
    }  # fmt: skip
    assert expected.items() <= tags.items()


def test_a_chip_of_the_challenges_size_is_a_small_plain_file(model, tmp_path):
    (path,) = predict_images(model(Blurred()), [InMemory.of(scene(512, 512))], Outputs(tmp_path))
    with rasterio.open(path) as mask:
        assert "LAYOUT" not in mask.tags(ns="IMAGE_STRUCTURE")
        assert mask.overviews(1) == []
        assert mask.colorinterp[0] == rasterio.enums.ColorInterp.gray
        assert mask.tags()["CLOUDCOVER_THRESHOLD"] == "0.5"
    assert path.stat().st_size < 20_000


@pytest.mark.parametrize("side", [96, 600])
def test_probabilities_are_bytes_with_their_scale(model, tmp_path, side):
    dn, predictor = scene(side, side), model(Blurred())
    dn[:, :7] = 0
    predict_images(predictor, [InMemory.of(dn)], Outputs(tmp_path / "out", probabilities=True))
    exact = predictor.probabilities(dn[np.newaxis], np.zeros((1, 4, 2), np.float32))
    with rasterio.open(tmp_path / "out/probabilities/scene.tif") as file:
        codes = file.read(1)
        assert (file.nodata, file.dtypes[0], file.descriptions) == (255, "uint8", ("probability of cloud",))
        scaled = codes * file.scales[0] + file.offsets[0]
        assert file.tags()["CLOUDCOVER_THRESHOLD"] == "0.5"
    assert (codes[:7] == 255).all()
    assert np.abs(scaled - exact[0])[7:].max() <= 0.5 / 254 + 1e-5
    np.testing.assert_array_equal(decode_soft_labels(codes)[7:], scaled[7:].astype(np.float32))
    assert texts(tmp_path / "out") == ["probabilities/scene.tif", "scene.tif"]


def test_chips_of_a_batch_have_the_files_of_single_images(model, tmp_path):
    """The two ways of prediction write the same bytes; resolution sends chips through the second one."""
    for number in range(3):
        write_chip(tmp_path / f"set/c{number}", scene(64, 96, number))
    found = find_images([tmp_path / "set"], BANDS)
    wanted = {"probabilities": True, "preview": True, "buffer_m": 30.0, "min_area_m2": 900.0}
    predictor = model(Blurred(), "vflip")
    predict_images(predictor, found, Outputs(tmp_path / "a", **wanted))
    predict_images(predictor, found, Outputs(tmp_path / "b", **wanted), resolution=10.0)
    assert len(texts(tmp_path / "a")) == 9
    for name in texts(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# --- threshold, area, buffer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metres", [0, 9, 10, 25, 30, 60])
def test_a_buffer_is_a_disc_in_metres_also_across_blocks(monkeypatch, metres):
    monkeypatch.setattr("cloudcover.predict.area.BLOCK", 16)
    mask = (np.random.default_rng(0).random((90, 70)) > 0.995).astype(np.uint8)
    mask[40:45] = 255
    cloud = mask == 1
    y, x = np.mgrid[-9:10, -9:10]
    expected = binary_dilation(cloud, np.hypot(20 * y, 10 * x) <= metres) & (mask != 255)
    add_buffer(mask, (20.0, 10.0), metres)
    np.testing.assert_array_equal(mask == 1, expected)
    assert (mask[40:45] == 255).all()


def test_small_clouds_are_removed_by_their_area_in_metres():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:4, 2:4] = 1  # 4 pixels of 10 x 20 m: 800 m²
    mask[10:13, 10:13] = 1  # 1,800 m²
    mask[0] = 255
    for area, left in ((0, 13), (800, 13), (801, 9), (1800, 9), (1801, 0)):
        changed = mask.copy()
        remove_small(changed, (20.0, 10.0), area)
        assert np.count_nonzero(changed == 1) == left
        assert (changed[0] == 255).all()


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
    codes = read(tmp_path / "p/probabilities/c000.tif")
    threshold = float(np.median(codes)) / 254
    predict(trained, tmp_path / "t", "--threshold", threshold)
    mask = read(tmp_path / "t/c000.tif")
    surely = np.abs(codes / 254 - threshold) > 1 / 254
    np.testing.assert_array_equal((mask == 1)[surely], (codes / 254 > threshold)[surely])
    for value in ("0", "1", "high"):
        result = run("predict", trained / "set", "--model", trained / "model", "--out", tmp_path, "--threshold", value)
        assert result.exit_code == 2


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
    assert texts(out) == sorted([*before, *(f"previews/c00{i}.png" for i in range(3))])


def test_skipping_does_not_take_files_of_others_for_masks(trained, tmp_path):
    (tmp_path / "c000.tif").write_bytes(b"mine")
    result = run("predict", trained / "set", "--model", trained / "model", "--out", tmp_path, "--skip-existing")
    assert result.exit_code == 1
    assert "c000.tif was not made by cloudcover and would be overwritten" in result.output
    assert (tmp_path / "c000.tif").read_bytes() == b"mine"


# --- summary --------------------------------------------------------------------------------------------------------

GRID = Grid(40, 60, "EPSG:32633", NORTH_UP)


def square(left: float, top: float, right: float, bottom: float) -> list[list[tuple[float, float]]]:
    """Corners by the pixels of `GRID`, in its CRS."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    return [[Affine(*GRID.transform) @ corner for corner in corners]]


def collection(*features: dict, crs: str = "urn:ogc:def:crs:EPSG::32633") -> dict:
    named = {"type": "name", "properties": {"name": crs}}
    return {"type": "FeatureCollection", "crs": named, "features": list(features)}


def feature(name: str, *rings, **more) -> dict:
    geometry = {"type": "Polygon", "coordinates": list(rings)}
    return {"type": "Feature", "properties": {"name": name}, "geometry": geometry, **more}


def halves() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 1
    mask[:10] = 255
    return mask


def test_shares_of_images_and_of_polygons(tmp_path):
    mask = halves()
    path = tmp_path / "areas.geojson"
    hole = square(5, 22, 15, 28)[0]
    areas = [
        feature("left", square(0, 20, 20, 30)[0], hole),
        feature("both", square(20, 0, 40, 20)[0]),
        feature("both", square(-100, -100, 1000, 1000)[0]),
        feature("outside", square(-50, -50, -10, -10)[0]),
        feature("", square(59.6, 0, 60, 40)[0]),  # covers no centre of a pixel
        feature("", square(0, 39, 60, 40)[0], id="edge"),
    ]
    path.write_text(json.dumps(collection(*areas)))
    summary = Summary(tmp_path / "masks.csv", read_polygons(path))
    summary.add("b", GRID, mask)
    summary.add("a", GRID, np.full((40, 60), 255, np.uint8))
    summary.write()
    table = tables.SHARES.read(tmp_path / "masks.csv")
    assert table["image"].tolist() == ["a"] * 5 + ["b"] * 5
    rows = {row.polygon: row for row in table[table["image"] == "b"].itertuples()}
    shares = {name: (row.pixels, row.cloud_share, row.clear_share, row.unknown_share) for name, row in rows.items()}
    assert shares == {
        "": (2400, 0.375, 0.375, 0.25),
        "left": (140, 0.0, 1.0, 0.0),
        "both": (400, 0.25, 0.25, 0.5),
        "both #3": (2400, 0.375, 0.375, 0.25),
        "edge": (60, 0.5, 0.5, 0.0),
    }


def test_polygons_in_degrees_lie_where_they_are(tmp_path):
    from rasterio.warp import transform_geom

    geometry = transform_geom(GRID.crs, "EPSG:4326", {"type": "Polygon", "coordinates": square(30, 10, 50, 30)})
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "Feature", "properties": None, "geometry": geometry}))
    summary = Summary(tmp_path / "masks.csv", read_polygons(path))
    summary.add("a", GRID, halves())
    summary.add("unplaced", Grid(40, 60, "", (1, 0, 0, 0, 1, 0)), halves())
    summary.write()
    table = tables.SHARES.read(tmp_path / "masks.csv")
    assert table["polygon"].tolist() == ["", "1", ""]
    assert abs(table["pixels"][1] - 400) <= 20
    assert table["cloud_share"][1] > 0.95


def test_polygons_of_a_turned_image(tmp_path):
    transform = Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(10, -10)
    corners = [transform @ corner for corner in ((30, 10), (50, 10), (50, 30), (30, 30), (30, 10))]
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(collection(feature("turned", corners))))
    summary = Summary(tmp_path / "masks.csv", read_polygons(path))
    summary.add("a", Grid(40, 60, "EPSG:32633", tuple(transform)[:6]), halves())
    summary.write()
    assert tables.SHARES.read(tmp_path / "masks.csv").iloc[1, 2:].tolist() == [400, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not valid JSON"),
        ("[]", "contains no polygon"),
        ('{"type": "FeatureCollection", "features": []}', "contains no polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "feature 1 is Point, expected Polygon or MultiPolygon"),
        ('{"type": "Feature", "geometry": null}', "feature 1 is no geometry"),
        (json.dumps(collection(feature("a", square(0, 0, 1, 1)[0]), crs="EPSG:1")), "its CRS 'EPSG:1' is unknown"),
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


def test_a_summary_replaces_an_earlier_one_and_no_other_table(tmp_path):
    path = tmp_path / "masks.csv"
    for _ in range(2):
        Summary(path).write()
    path.write_text("name,area\nmine,1\n")
    with pytest.raises(FolderError, match=r"masks\.csv exists and is no summary of masks"):
        Summary(path)
    assert path.read_text() == "name,area\nmine,1\n"


def test_the_summary_of_the_command_has_the_shares_of_the_masks(trained, tmp_path):
    predict(trained, tmp_path / "out", "--summary", tmp_path / "s/masks.csv", "--buffer", 20)
    table = pd.read_csv(tmp_path / "s/masks.csv", keep_default_na=False).set_index("image")
    assert table.index.tolist() == ["c000", "c001", "c002"]
    for name, row in table.iterrows():
        mask = read(tmp_path / f"out/{name}.tif")
        assert row["cloud_share"] == (mask == 1).mean()


# --- previews -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "small"), [((700, 500), (700, 500)), ((2100, 1500), (700, 500)), ((40, 1500), (20, 750))]
)
def test_a_preview_is_small_in_true_colour_with_the_outline(model, tmp_path, size, small):
    dn = np.full((4, *size), 1000, np.uint16)
    top, left = size[0] // 4, size[1] // 4
    dn[0, top:-top, left:-left] = 9000  # blue alone
    predict_images(model(Brightness(1.0)), [InMemory.of(dn)], Outputs(tmp_path, preview=True))
    picture = np.asarray(Pillow.open(tmp_path / "previews/scene.png"))
    assert picture.shape == (*small, 3)
    outline = (picture == PREDICTION_COLOUR).all(axis=2)
    inside = zoom((dn[0] == 9000).astype(np.uint8), (small[0] / size[0], small[1] / size[1]), order=0) == 1
    assert (picture[inside & ~outline].min(axis=0) == picture[inside & ~outline].max(axis=0)).all()
    red, _, blue = picture[inside & ~outline][0]
    assert blue == 255 > red
    assert 0 < outline.sum() < 2.2 * sum(small)
    assert not outline[~binary_dilation(inside, iterations=2)].any()


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
    assert texts(tmp_path / "out") == sorted(
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
        assert read(path).shape == (side, side)
    for path in out.glob("previews/*.png"):
        Pillow.open(path).verify()
