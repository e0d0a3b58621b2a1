"""STAC items and rasters behind an address: what they hold becomes DN, and what is wrong is named."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.shutil import copy as gdal_copy

from cloudcover.data.chips import ChipError
from cloudcover.rasters.find import find_images
from helpers.images import opened, read, shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, stored, write
from helpers.servers import Trouble

COMMON = dict(zip(BANDS, ("blue", "green", "red", "nir"), strict=True))
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
BUCKETS = {"AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_NO_SIGN_REQUEST": "YES", "GDAL_HTTP_MAX_RETRY": "0"}
NO_BUCKETS = {**BUCKETS, "AWS_S3_ENDPOINT": "127.0.0.1:9"}
"""Environment for buckets on loopback, and for a server that is not there."""


def earth_search(folder, href="./{}.tif", offset=-0.1, **properties):
    """An item as Earth Search v1 has it, beside its assets; returns it and the stored values."""
    pixels = {band: stored(i) for i, band in enumerate(BANDS)}
    assets = {
        "visual": {
            "href": "./TCI.tif",
            "type": COG,
            "roles": ["visual"],
            "eo:bands": [{"name": name, "common_name": name} for name in ("red", "green", "blue")],
        },
        "thumbnail": {"href": "./t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "granule_metadata": {"href": "./metadata.xml", "type": "application/xml", "roles": ["metadata"]},
    }
    for band, name in COMMON.items():
        write(folder / f"{band}.tif", pixels[band], nodata=0)
        gdal_copy(folder / f"{band}.tif", folder / f"{band}.cog.tif", driver="COG")
        (folder / f"{band}.cog.tif").rename(folder / f"{band}.tif")
        described = {
            "eo:bands": [{"name": name, "common_name": name, "center_wavelength": 0.49}],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": 10, "scale": 0.0001}],
            "roles": ["data", "reflectance"],
        }
        if offset is not None:
            described["raster:bands"][0]["offset"] = offset
        assets[name] = {"href": href.format(band), "type": COG, **described}
        assets[f"{name}-jp2"] = {"href": f"s3://sentinel-s2-l2a/{band}.jp2", "type": "image/jp2", **described}
    return write_item(folder, assets, properties), pixels


def write_item(folder, assets, properties=None, name="S2A_32TQM_20200101_0_L2A"):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "properties": {"datetime": "2020-01-01T10:10:10Z", **(properties or {})},
        "geometry": None,
        "links": [],
        "assets": assets,
    }
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(item))
    return path


# --- items ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "properties", "expected"),
    [
        (-0.1, {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}, 0),
        (-0.1, {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"}, -1000),
        (0, {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "03.01"}, 0),
        (None, {"s2:processing_baseline": "05.09"}, -1000),
        (None, {"s2:processing_baseline": "02.14"}, 0),
        (-0.05, {}, -500),
    ],
)
def test_the_offset_of_an_item_is_what_it_states(tmp_path, offset, properties, expected):
    path, pixels = earth_search(tmp_path, offset=offset, **properties)
    name, kind, says, doubtful = opened(path)
    assert (name, kind, doubtful) == (path.stem, "stac", False)
    assert "STAC item, assets blue, green, red, nir" in says
    np.testing.assert_array_equal(read(path), np.stack([shifted(pixels[band], expected) for band in BANDS]))
    if properties:
        np.testing.assert_array_equal(read(path, offset=700)[0], shifted(pixels["B02"], expected))


def test_an_offset_that_an_item_does_not_state_is_doubtful_and_can_be_given(tmp_path):
    path, pixels = earth_search(tmp_path, offset=None)
    assert opened(path)[3] is True
    assert opened(path, offset=1000)[3] is False
    np.testing.assert_array_equal(read(path, offset=1000)[3], shifted(pixels["B08"], -1000))


@pytest.mark.parametrize(
    ("declared", "nodata", "of_file"),
    [
        ({"scale": 0.0001}, -9999, {"nodata": -9999}),
        ({"scale": 0.0001}, 7, {"mask": True}),
        ({"nodata": 65535}, 65535, {}),
        ({"scale": 0.0001, "nodata": "nan"}, 0, {}),
        ({"scale": 0.0001, "nodata": 1, "offset": 0.01}, 1, {"nodata": 0}),
    ],
)
def test_no_data_of_the_item_or_else_of_its_files(tmp_path, declared, nodata, of_file):
    path, pixels = earth_search(tmp_path)
    item = json.loads(path.read_text())
    for band, name in COMMON.items():
        item["assets"][name]["raster:bands"] = [declared]
        values = np.where(pixels[band] == 0, nodata, pixels[band]).astype(np.int16 if nodata < 0 else np.uint16)
        more = {"mask": pixels[band] != 0} if "mask" in of_file else of_file
        write(tmp_path / f"{band}.tif", values, **more)
    path.write_text(json.dumps({**item, "assets": {name: item["assets"][name] for name in COMMON.values()}}))
    expected = np.stack([pixels[band] == (0 if nodata != 1 else 1) for band in BANDS])
    if nodata == 1:
        expected |= np.stack([pixels[band] == 0 for band in BANDS])
    np.testing.assert_array_equal(read(path) == 0, expected)


def test_items_with_bands_as_keys_and_nothing_else(tmp_path):
    pixels = {band: stored(i) for i, band in enumerate(BANDS)}
    assets = {}
    for band in (*BANDS, "B8A"):
        write(tmp_path / "assets" / f"{band}.tif", pixels.get(band, stored(9)), scale=0.0001, offset=-0.1, nodata=0)
        assets[band] = {"href": f"assets/{band}.tif", "type": COG, "roles": ["data"]}
    path = write_item(tmp_path, assets)
    np.testing.assert_array_equal(read(path)[3], shifted(pixels["B08"], -1000))
    assert [image.name for image in find_images([tmp_path], BANDS, kind="stac")] == [path.stem]


def test_items_of_stac_1_1_with_scale_beside_the_bands(tmp_path):
    assets = {}
    for i, (band, name) in enumerate(COMMON.items()):
        write(tmp_path / f"{band}_10m.jp2", stored(i))
        assets[f"{band}_10m"] = {
            "href": f"{band}_10m.jp2",
            "type": "image/jp2",
            "bands": [{"name": band, "eo:common_name": name}],
            "nodata": 0,
            "raster:scale": 0.0001,
            "raster:offset": -0.1,
            "roles": ["data", "reflectance", "sampling:original"],
            "gsd": 10,
        }
        for metres in (20, 60):
            write(tmp_path / f"{band}_{metres}m.jp2", stored(i, 24), metres=20)
            more = {"href": f"{band}_{metres}m.jp2", "gsd": metres}
            assets = {f"{band}_{metres}m": {**assets[f"{band}_10m"], **more}, **assets}
    np.testing.assert_array_equal(read(write_item(tmp_path, assets))[2], shifted(stored(2), -1000))


@pytest.mark.parametrize(
    ("declared", "properties", "offset"),
    [
        ({"raster:bands": [{"data_type": "float32", "scale": 1, "offset": 0, "nodata": "nan"}]}, {}, 0),
        ({"raster:bands": [{"data_type": "float32"}]}, {"s2:processing_baseline": "05.09"}, 0),
        ({"raster:bands": [{"scale": 1, "offset": -0.1}]}, {"s2:processing_baseline": "05.09"}, -1000),
    ],
)
def test_floating_point_assets_are_reflectance_that_no_baseline_shifts(tmp_path, declared, properties, offset):
    path, pixels = earth_search(tmp_path, **properties)
    item = json.loads(path.read_text())
    for band, name in COMMON.items():
        reflectance = np.where(pixels[band] == 0, np.nan, pixels[band] / 10_000)
        write(tmp_path / f"{band}.tif", reflectance.astype(np.float32), nodata=np.nan)
        item["assets"][name] |= declared
    path.write_text(json.dumps({**item, "assets": {name: item["assets"][name] for name in COMMON.values()}}))
    np.testing.assert_array_equal(read(path)[1], shifted(pixels["B03"], offset))


def test_scale_and_offset_count_in_either_list_of_bands(tmp_path):
    """Some catalogues fill the lists of STAC 1.0 and 1.1."""
    path, pixels = earth_search(tmp_path)
    item = json.loads(path.read_text())
    for name in COMMON.values():
        del item["assets"][name]["raster:bands"]
        item["assets"][name]["bands"] = [{"name": name, "raster:scale": 0.0002, "raster:offset": -0.1, "nodata": 0}]
    path.write_text(json.dumps({**item, "assets": {name: item["assets"][name] for name in COMMON.values()}}))
    np.testing.assert_array_equal(read(path)[0], shifted(2 * pixels["B02"], -1000))


@pytest.mark.parametrize("href", ["./B 02%20é.tif", "./B%2002%2520%C3%A9.tif"])
def test_paths_of_assets_may_be_encoded_or_not(tmp_path, href):
    path, pixels = earth_search(tmp_path, offset=0)
    (tmp_path / "B02.tif").rename(tmp_path / "B 02%20é.tif")
    item = json.loads(path.read_text())
    item["assets"]["blue"]["href"] = href
    path.write_text(json.dumps(item))
    np.testing.assert_array_equal(read(path)[0], pixels["B02"])


def test_items_of_landsats_level_1_are_refused(tmp_path):
    path, _ = earth_search(tmp_path, **{"landsat:correction": "L1TP"})
    with pytest.raises(ChipError, match=r"is Landsat Level 1.*folder of the product"):
        read(path)


@pytest.mark.parametrize(("platform", "expected"), [("sentinel-2c", -1000), ("landsat-8", 0)])
def test_the_processing_version_is_a_baseline_for_sentinel_2_only(tmp_path, platform, expected):
    path, pixels = earth_search(tmp_path, offset=None, platform=platform, **{"processing:version": "05.11"})
    np.testing.assert_array_equal(read(path)[1], shifted(pixels["B03"], expected))
    assert opened(path)[3] is (expected == 0)


def test_an_asset_may_hold_all_bands_in_its_own_order(tmp_path):
    order = ("nir", "red", "green", "blue")
    stack = np.stack([stored(i) for i in range(4)])
    write(tmp_path / "all.tif", stack)
    described = {"eo:bands": [{"name": f"band{i}", "common_name": name} for i, name in enumerate(order)]}
    asset = {"href": "all.tif", "type": COG, "roles": ["data"], **described}
    path = write_item(tmp_path, {"image": asset})
    np.testing.assert_array_equal(read(path), stack[::-1])


def test_landsats_panchromatic_band_8_is_not_the_near_infrared(tmp_path):
    assets = {}
    for number, name in ((2, "blue"), (3, "green"), (4, "red"), (5, "nir08"), (8, "pan")):
        write(tmp_path / f"B{number}.TIF", stored(number))
        assets[f"B{number}"] = {"href": f"B{number}.TIF", "eo:bands": [{"name": f"B{number}", "common_name": name}]}
    np.testing.assert_array_equal(read(write_item(tmp_path, assets))[3], stored(5))


def change(path, key, value):
    item = json.loads(path.read_text())
    item["assets"]["red"] = {**item["assets"]["red"], key: value} if key else {}
    path.write_text(json.dumps(item))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: change(p, "eo:bands", [{"name": "x"}]) or change(p, "type", "text/plain"), None),
        (lambda p: change(p, "href", "gs://bucket/B04.tif"), r"the asset red is gs://bucket/B04\.tif: expected a file"),
        (lambda p: change(p, "href", "/vsicurl/http://127.0.0.1/B04.tif"), "the asset red is /vsicurl"),
        (lambda p: change(p, "href", ""), "the asset red is nowhere"),
        (lambda p: change(p, "href", "x" * 300 + ".tif"), "B04: .*File name too long"),
        (lambda p: change(p, "href", "B04_.tif"), r"B04: .*B04_\.tif is missing"),
        (
            lambda p: change(p, "raster:bands", [{"scale": "x", "spatial_resolution": 10}]),
            r"not a STAC item: assets\.red\.raster:bands\.0\.scale: .*valid number",
        ),
        (
            lambda p: change(p, "raster:bands", [{"scale": -1, "spatial_resolution": 10}]),
            r"B04: .* has the scale -1 .*expected a positive scale",
        ),
        (
            lambda p: change(p, "raster:bands", [{"scale": 0.0001, "offset": -1000, "spatial_resolution": 10}]),
            r"B04: .* has the scale 0\.0001 and the offset -1000: .* an offset of reflectance, such as -0\.1",
        ),
        (
            lambda p: change(p, "raster:bands", [{"scale": 10_000, "spatial_resolution": 10}]),
            r"B04: .* has the scale 10000 and the offset 0: expected a positive scale, such as 0\.0001",
        ),
        (lambda p: (p.parent / "B04.tif").write_bytes(b"<VRTDataset/>"), r"B04: .*cannot be read .*not a GeoTIFF"),
        (lambda p: write(p.parent / "B04.tif", stored(2), crs="EPSG:4326"), "B04: .*differs from B02: crs"),
        (lambda p: p.write_text(p.read_text()[:500]), "is not a STAC item: the file: Invalid JSON"),
        (lambda p: p.write_text('{"type": "FeatureCollection", "features": []}'), "is not a STAC item"),
        (lambda p: p.write_text("[]"), "is not a STAC item"),
        (lambda p: p.write_text("[" * 200_000), "is not a STAC item: the file: Invalid JSON"),
    ],
)
def test_bad_items_are_named_with_asset_or_band(tmp_path, monkeypatch, spoil, message):
    for name, value in NO_BUCKETS.items():
        monkeypatch.setenv(name, value)
    path, _ = earth_search(tmp_path)
    spoil(path)
    if message is None:  # the COG is no raster any more, so that the JPEG 2000 has its turn
        message = r"B04: s3://sentinel-s2-l2a/B04\.jp2 cannot be read"
    with pytest.raises(ChipError, match=message):
        read(path)


def test_a_band_that_no_asset_or_that_several_have_is_named(tmp_path):
    path, _ = earth_search(tmp_path)
    with pytest.raises(ChipError, match=r"B11: .*has no raster for it among its assets visual, "):
        read(path, ["B02", "B11"])
    item = json.loads(path.read_text())
    item["assets"]["red2"] = item["assets"]["red"]
    path.write_text(json.dumps(item))
    with pytest.raises(ChipError, match=r"B04: .*has several rasters for it: red, red2"):
        read(path)


def places(value, path=()):
    """Paths to all values inside a document."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_item_with_any_value_in_any_place_is_read_or_refused(written_item, data):
    item = json.loads(written_item.read_text())
    *path, last = data.draw(st.sampled_from([place for place in places(item) if place]))
    holder = item
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(
        st.sampled_from(
            [None, True, -1, 1e400, "", "x", "http://[", "nan", [], [1], [[]], {}, {"name": 1}, [{"scale": []}]]
        )
    )
    (folder := written_item.parent / "changed").mkdir(exist_ok=True)
    changed = folder / "item.json"
    changed.write_text(json.dumps(item))
    for link in BANDS:
        if not (folder / f"{link}.tif").exists():
            (folder / f"{link}.tif").symlink_to(written_item.parent / f"{link}.tif")
    with suppress(ChipError):
        assert read(changed).shape == (4, SIZE, SIZE)


@pytest.fixture(scope="module")
def written_item(tmp_path_factory):
    path, _ = earth_search(tmp_path_factory.mktemp("item"), **{"s2:processing_baseline": "05.09", "platform": "x"})
    return path


# --- addresses ------------------------------------------------------------------------------------------------------


def test_an_item_and_its_assets_behind_addresses(web):
    path, pixels = earth_search(web.root, "assets/../{}.tif", **{"s2:processing_baseline": "05.09"})
    expected = np.stack([shifted(pixels[band], -1000) for band in BANDS])
    np.testing.assert_array_equal(read(f"{web.url}/{path.name}"), expected)
    path, _ = earth_search(web.root, web.url + "/{}.tif", **{"s2:processing_baseline": "05.09"})
    np.testing.assert_array_equal(read(path), expected)
    assert {name for name in web.seen if name.endswith(".tif")} == {
        f"{band}.tif" for band in BANDS
    }  # and nothing beside


@pytest.mark.parametrize("href", ["file:///etc/hostname", "gs://bucket/{}.tif", "/vsizip//x.zip/{}.tif"])
def test_a_remote_item_cannot_name_a_file_of_this_machine(web, href):
    path, _ = earth_search(web.root, href)
    with pytest.raises(ChipError, match=r"the asset blue is|B02: http.*out of reach"):
        read(f"{web.url}/{path.name}")


def test_a_cog_behind_an_address_is_read_in_parts(web):
    stack = np.stack([stored(i, 512) for i in range(4)])
    write(web.root / "a.tif", stack, descriptions=BANDS)
    gdal_copy(web.root / "a.tif", web.root / "sub.cog.tif", driver="COG", BLOCKSIZE="128", COMPRESS="NONE")
    (found,) = find_images([f"{web.url}/sub.cog.tif?sig=s3cret"], BANDS)
    assert (found.name, found.kind) == ("sub.cog", "raster")
    with found.open() as image:
        np.testing.assert_array_equal(image.read(slice(0, 100), slice(0, 100)), stack[:, :100, :100])
    sent = sum(size for *_, size, _ in web.requests)
    assert sent < (web.root / "sub.cog.tif").stat().st_size / 3


def test_rasters_and_assets_in_buckets(web, tmp_path, monkeypatch):
    for name, value in BUCKETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_S3_ENDPOINT", web.url.removeprefix("http://"))
    stack = np.stack([stored(i) for i in range(4)])
    write(web.root / "bucket" / quote("a b%20é.tif"), stack, descriptions=BANDS)
    (found,) = find_images(["s3://bucket/a b%20é.tif"], BANDS)
    assert (found.name, found.kind) == ("a b%20é", "raster")
    np.testing.assert_array_equal(read("s3://bucket/a b%20é.tif"), stack)
    earth_search(web.root / "bucket")
    path, pixels = earth_search(tmp_path / "item", "s3://bucket/{}.tif")
    np.testing.assert_array_equal(read(path)[3], shifted(pixels["B08"], -1000))
    with pytest.raises(ChipError, match=r"no\.tif: s3://bucket/no\.tif cannot be read .*out of reach"):
        read("s3://bucket/no.tif")
    with pytest.raises(ValueError, match=r"s3://bucket/item\.json cannot be read: only rasters are read from buckets"):
        read("s3://bucket/item.json")


def test_an_address_in_capitals_is_read_without_a_warning(web, caplog):
    pixels = np.stack([stored(i) for i in range(4)])
    write(web.root / "a.tif", pixels, descriptions=BANDS)
    np.testing.assert_array_equal(read(f"{web.url.replace('http', 'HTTP')}/a.tif"), pixels)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_cannot_be_fetched_is_named_without_the_keys_of_its_address(web):
    for name, kind in (("a.tif", "raster"), ("item", "stac"), ("it em.json", "stac"), ("v1.0", "stac")):
        (found,) = find_images([f"{web.url}/{name}?sig=s3cret"], BANDS)
        assert (found.kind, found.name) == (kind, {"a.tif": "a", "it em.json": "it em"}.get(name, name))
        with pytest.raises(ChipError, match=rf"/{quote(name)} cannot be") as error, found.open():
            pass
        assert "s3cret" not in str(error.value)
    write(web.root / "b.tif", np.stack([stored(i) for i in range(4)]), descriptions=BANDS)
    web.trouble = lambda path, number: Trouble(body=b"x" * 4000) if path == "b.tif" else None
    with pytest.raises(ChipError, match=r"b\.tif cannot be read .*out of reach, truncated or not a GeoTIFF"):
        read(f"{web.url}/b.tif")
