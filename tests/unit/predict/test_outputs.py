"""What a prediction writes: masks, probabilities, previews, tables, and what is left after a bad end."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image as Pillow
from rasterio.warp import transform, transform_geom
from scipy.ndimage import binary_dilation, zoom

from cloudcover.data import tables
from cloudcover.data.colours import PREDICTION_COLOUR
from cloudcover.data.grid import Grid
from cloudcover.data.ownership import FolderError
from cloudcover.masks.codec import decode_soft_labels
from cloudcover.predict.area import add_buffer, remove_small
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.polygons import Polygon, Polygons, read_polygons
from cloudcover.predict.summary import Summary
from cloudcover.rasters.find import find_images
from helpers.layouts import BANDS, files_below
from helpers.networks import Blurred, Brightness
from helpers.scenes import NORTH_UP, InMemory, scene, write_chip

MASK = {0: (38, 50, 64, 255), 1: (240, 244, 248, 255), 255: (128, 128, 128, 0)}


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
    assert files_below(tmp_path / "out") == ["probabilities/scene.tif", "scene.tif"]


def test_chips_of_a_batch_have_the_files_of_single_images(model, tmp_path):
    """The two ways of prediction write the same bytes; resolution sends chips through the second one."""
    for number in range(3):
        write_chip(tmp_path / f"set/c{number}", scene(64, 96, number))
    found = find_images([tmp_path / "set"], BANDS)
    wanted = {"probabilities": True, "preview": True, "buffer_m": 30.0, "min_area_m2": 900.0}
    predictor = model(Blurred(), "vflip")
    predict_images(predictor, found, Outputs(tmp_path / "a", **wanted))
    predict_images(predictor, found, Outputs(tmp_path / "b", **wanted), resolution=10.0)
    assert len(files_below(tmp_path / "a")) == 9
    for name in files_below(tmp_path / "a"):
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


def test_polygons_that_no_image_shows_are_said(tmp_path, caplog):
    path = tmp_path / "areas.geojson"
    outside = square(-50, -50, -10, -10)[0]
    path.write_text(json.dumps(collection(feature("here", square(0, 0, 9, 9)[0]), feature("there", outside))))
    summary = Summary(tmp_path / "masks.csv", read_polygons(path))
    summary.add("a", GRID, halves())
    summary.write()
    assert [record.message for record in caplog.records] == [
        "1 of 2 polygons cover no pixel of any image and have no row: there"
    ]


def test_coordinates_that_are_not_degrees_are_refused(tmp_path):
    path = tmp_path / "areas.geojson"
    area = {"type": "Polygon", "coordinates": square(0, 0, 9, 9)}
    for named in ({}, {"crs": {"type": "link", "properties": {"href": "x"}}}, {"crs": "EPSG:4258"}):
        path.write_text(json.dumps({**area, **named}))
        with pytest.raises(ValueError, match=r"areas\.geojson: feature 1 has the corner \[500000\.0, .*EPSG:4326"):
            read_polygons(path)


def degrees(*rings) -> Polygons:
    return Polygons([Polygon("a", {"type": "Polygon", "coordinates": list(rings)})], "EPSG:4326")


WORLD = [(-180, -90), (180, -90), (180, 90), (-180, 90), (-180, -90)]


def test_polygons_far_beyond_an_image_cover_it(tmp_path):
    hole = transform_geom(GRID.crs, "EPSG:4326", {"type": "Polygon", "coordinates": square(0, 0, 30, 40)})
    far = {"type": "MultiPolygon", "coordinates": [[[(-90, -45), (-89, -45), (-89, -44), (-90, -45)]], [WORLD]]}
    for polygons, pixels in (
        (degrees(WORLD), 2400),
        (degrees(WORLD, *hole["coordinates"]), 1200),
        (Polygons([Polygon("a", far)], "EPSG:4326"), 2400),
        (Polygons([Polygon("a", {**far, "coordinates": far["coordinates"][:1]})], "EPSG:4326"), 0),
    ):
        summary = Summary(tmp_path / "masks.csv", polygons)
        summary.add("a", GRID, halves())
        summary.write()
        table = tables.SHARES.read(tmp_path / "masks.csv")
        assert table.loc[table["polygon"] == "a", "pixels"].sum() == pixels


def test_a_parallel_is_no_straight_line_of_the_projection(tmp_path):
    """Over 100 km at 45 degrees, a chord is 200 m from it."""
    grid = Grid(1000, 1000, "EPSG:32633", (100.0, 0.0, 5e5, 0.0, -100.0, 5_100_000.0))
    corners = [(15.0, 45.5), (16.2, 45.5), (16.2, 40.0), (15.0, 40.0), (15.0, 45.5)]
    summary = Summary(tmp_path / "masks.csv", degrees(corners))
    rows, columns = np.mgrid[:1000, :1000] + 0.5
    x, y = transform(grid.crs, "EPSG:4326", (5e5 + 100 * columns).ravel(), (5_100_000.0 - 100 * rows).ravel())
    south, beside = np.asarray(y) < 45.5, (np.asarray(x) > 15.0) & (np.asarray(x) < 16.2)
    summary.add("a", grid, (south & beside).reshape(1000, 1000).astype(np.uint8))
    summary.write()
    row = tables.SHARES.read(tmp_path / "masks.csv").iloc[1]
    assert abs(row["pixels"] - (south & beside).sum()) < 20
    assert row["cloud_share"] > 0.9999


def test_the_number_0_is_a_name(tmp_path):
    path = tmp_path / "areas.geojson"
    path.write_text(json.dumps(collection(*(feature("", square(0, 0, 9, 9)[0], id=number) for number in (0, 1)))))
    assert [area.name for area in read_polygons(path).areas] == ["0", "1"]


def test_a_summary_replaces_an_earlier_one_and_no_other_table(tmp_path):
    path = tmp_path / "masks.csv"
    for _ in range(2):
        Summary(path).write()
    path.write_text("name,area\nmine,1\n")
    with pytest.raises(FolderError, match=r"masks\.csv exists and is not a table of shares of masks"):
        Summary(path)
    assert path.read_text() == "name,area\nmine,1\n"


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
