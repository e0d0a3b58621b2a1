"""Images in every layout that is read: what they hold becomes DN, and what is wrong with them is named."""

from __future__ import annotations

import math
import os
import pickle
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.shutil import copy as gdal_copy

from cloudcover.data.chips import ChipError
from cloudcover.data.values import Stored, as_dn, suspected_offset
from cloudcover.rasters.find import find_images
from helpers.images import opened, read, shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, TILE, mtl, mtl_text, stored, write, write_hls, write_landsat, write_safe, zipped

WHOLE = slice(0, SIZE)


def chip(folder, **more):
    pixels = {band: stored(i) for i, band in enumerate(BANDS)}
    for band, values in pixels.items():
        write(folder / f"{band}.tif", values, **more)
    return pixels


# --- values ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_signed_and_floating_point_values_become_the_dn_that_they_mean(data):
    """Against the definition, pixel by pixel."""
    signed = data.draw(st.booleans())
    dtype = np.int16 if signed else np.float32
    one = (
        st.integers(-1000, 32767) if signed else st.floats(-0.25, 6.5, width=32) | st.sampled_from([math.nan, math.inf])
    )
    pixels = np.array(data.draw(st.lists(one, min_size=6, max_size=6)), dtype)
    scale = data.draw(st.sampled_from([1.0, 0.0001, 0.0002]) if signed else st.sampled_from([1.0, 0.5]))
    offset = data.draw(st.sampled_from([0.0, -100.0 if signed and scale == 1 else -0.1]))
    tag = data.draw(st.sampled_from([None, -9999, float(pixels[0])]))
    tag = tag if tag is None or not signed else int(tag)
    lost = data.draw(st.sampled_from([0, 1000]))
    nodata = data.draw(st.sampled_from([0, 65535]))
    dn = as_dn(pixels, Stored(scale, offset, tag, reflectance=not signed), nodata, lost)
    assert dn.dtype == np.uint16
    for value, found in zip(pixels.tolist(), dn.tolist(), strict=True):
        if not math.isfinite(value) or value == tag or (tag is None and value == nodata):
            assert found == nodata
            continue
        unit = 10_000 if not signed or scale != 1 else 1
        exact = unit * (scale * value + offset)
        if not offset:
            exact -= lost * (unit * scale if signed else 1)
        assert abs(found - min(max(exact, 1), 65535)) <= 0.51 + (max(round(exact), 1) == nodata)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([0.2, 1200], np.float32), r"largest value 1200\.0 would be 12000000 DN"),
        (np.array([0.2, -9999], np.float32), r"smallest value -9999\.0 would be .* DN: .*-a_nodata -9999"),
        (np.array([200, -9999], np.int16), r"smallest value -9999 would be -9999 DN"),
    ],
)
def test_values_that_cannot_be_reflectance_are_refused(tmp_path, pixels, message):
    for band in BANDS:
        write(tmp_path / f"x_{band}.tif", pixels.reshape(1, 2))
    with pytest.raises(ChipError, match=message):
        read(tmp_path)


# --- chips and single-band rasters ----------------------------------------------------------------------------------


def test_a_chip_is_read_window_by_window_and_has_its_folders_name(tmp_path):
    pixels = chip(tmp_path / "set" / "c0")
    (found,) = find_images([tmp_path], BANDS)
    found = pickle.loads(pickle.dumps(found))
    assert (found.name, found.kind) == ("c0", "chip")
    with found.open() as image:
        assert (image.grid.height, image.grid.width, image.grid.crs) == (SIZE, SIZE, "EPSG:32632")
        assert image.grid.transform == (10, 0, 600_000, 0, -10, 5_000_040)
        assert set(image.files) == {tmp_path / f"set/c0/{band}.tif" for band in BANDS}
        assert (image.conversion, image.doubtful) == ("", True)
        part = image.read(slice(3, 20), slice(10, 48))
    assert part.dtype == np.uint16
    np.testing.assert_array_equal(part, np.stack([pixels[band][3:20, 10:48] for band in BANDS]))


def test_a_chips_own_scale_offset_mask_and_the_given_offset_count(tmp_path):
    pixels = chip(tmp_path / "a", scale=0.0001, offset=-0.1)
    np.testing.assert_array_equal(read(tmp_path / "a")[0], shifted(pixels["B02"], -1000))
    assert "DN by scale=0.0001,offset=-0.1" in opened(tmp_path / "a")[2]
    pixels = chip(tmp_path / "b")
    np.testing.assert_array_equal(read(tmp_path / "b", offset=1000)[3], shifted(pixels["B08"], -1000))
    assert opened(tmp_path / "b", offset=1000)[3] is False
    chip(tmp_path / "c", mask=np.tri(SIZE, dtype=bool))
    assert (read(tmp_path / "c", nodata=65535)[0] == 65535).sum() == SIZE * (SIZE - 1) // 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: (c / "B03.tif").unlink(), r"B03: .*B03\.tif is missing"),
        (lambda c: (c / "B03.tif").rename(c / "B03.img"), r"but B03\.img is there: expected a GeoTIFF"),
        (lambda c: write(c / "B03.tif", stored(1), crs="EPSG:32633"), r"B03: .*differs from B02: crs EPSG:32633"),
        (lambda c: write(c / "B03.tif", stored(1, 24), metres=20), r"B03: .*differs from B02: height 24 against 48"),
        (lambda c: write(c / "B03.tif", stored(1), metres=20), "B03: .*differs from B02: transform"),
        (lambda c: write(c / "B03.tif", stored(1).astype(np.float32)), "B03: .*is float32, expected uint16$"),
        (lambda c: write(c / "B03.tif", np.stack([stored(1)] * 2)), r"B03: .*has 2 bands, expected 1"),
        (
            lambda c: write(c / "B03.tif", stored(1), driver="PNG", crs=None),
            "cannot be read .*truncated or not a GeoTIFF",
        ),
        (lambda c: os.truncate(c / "B03.tif", 3000), r"B03: .*cannot be read .*truncated or not a GeoTIFF"),
        (lambda c: shutil.copy(c / "B03.tif", c / "B03.TIFF"), r"B03.*have one name"),
    ],
)
def test_a_bad_chip_is_named_with_band_and_file(tmp_path, spoil, message):
    chip(tmp_path / "c0")
    spoil(tmp_path / "c0")
    with pytest.raises(ChipError, match=message):
        read(tmp_path)


def test_a_huge_image_is_refused_before_its_pixels_are_read(tmp_path):
    chip(tmp_path / "c0")
    for band in BANDS:
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "height": 60_000, "width": 60_000, "tiled": True}
        with rasterio.open(tmp_path / f"c0/{band}.tif", "w", **profile, compress="deflate", SPARSE_OK=True):
            pass
    with pytest.raises(ChipError, match=r"60000 x 60000 pixels, more than .*cut it into parts"):
        read(tmp_path)


def test_blocks_of_very_many_bands_are_refused_before_they_are_read(tmp_path):
    profile = {"driver": "GTiff", "count": 5000, "dtype": "uint16", "height": 256, "width": 1024, "interleave": "pixel"}
    with rasterio.open(tmp_path / "x.tif", "w", **profile, blockysize=256, compress="deflate", SPARSE_OK=True):
        pass
    with pytest.raises(ChipError, match=r"is stored in blocks of more than .* values"):
        read(tmp_path / "x.tif", numbers=[1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{TILE}_{{}}_10m.jp2", TILE),
        (f"{TILE}_{{}}.jp2", TILE),
        ("x_{}.tif", "x"),
        ("a.b-{}.TIFF", "a.b"),
        ("{}.jp2", "scene"),
    ],
)
def test_single_band_rasters_are_found_by_the_band_in_their_name(tmp_path, name, expected):
    pixels = {band: stored(i) for i, band in enumerate(BANDS)}
    for band in BANDS:
        write(tmp_path / "scene" / name.format(band), pixels[band])
    write(tmp_path / "scene" / name.format("B11"), stored(5))
    assert opened(tmp_path)[:2] == (expected, "bands")
    np.testing.assert_array_equal(read(tmp_path), np.stack(list(pixels.values())))


def test_bands_without_a_leading_zero_in_capitals_and_several_images_in_a_folder(tmp_path):
    for part in ("", "p1_", "p2_"):
        for i, band in enumerate(("B2", "b3", "B04", "B8")):
            write(tmp_path / f"{part}{band}.TIF", stored(i) + len(part))
    found = find_images([tmp_path], BANDS, kind="bands")
    assert [image.name for image in found] == [tmp_path.name, "p1", "p2"]
    for image, more in zip(found, (0, 3, 3), strict=True):
        with image.open() as file:
            np.testing.assert_array_equal(file.read(WHOLE, WHOLE)[3], stored(3) + more)


def test_the_file_with_the_smallest_pixels_is_the_band(tmp_path):
    for i, band in enumerate(BANDS):
        write(tmp_path / f"{TILE}_{band}_10m.jp2", stored(i))
        write(tmp_path / f"{TILE}_{band}_20m.jp2", stored(i, 24), metres=20)
    np.testing.assert_array_equal(read(tmp_path)[1], stored(1))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_signed_and_floating_point_bands_are_read(tmp_path, dtype):
    floats = dtype is np.float32
    for i, band in enumerate(BANDS):
        values = stored(i).astype(dtype) / (10_000 if floats else 1)
        values[stored(i) == 0] = np.nan if floats else -32768
        write(tmp_path / f"x_{band}.tif", values.astype(dtype), nodata=np.nan if floats else -32768)
    np.testing.assert_array_equal(read(tmp_path)[2], stored(2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: (c / "x_B08.jp2").unlink(), r"B08: .*x_B08\.tif or \.jp2 is missing"),
        (lambda c: write(c / "x_B8.tif", stored(3)), r"B08: .*x_B08\.jp2 and x_B8\.tif are the same band: remove one"),
        (lambda c: write(c / "x_B08.jp2", stored(3), crs="EPSG:32633"), "B08: .*differs from B02: crs"),
        (lambda c: write(c / "x_B08.jp2", stored(3, 24), metres=20), "B08: .*differs from B02: height 24 against 48"),
        (lambda c: write(c / "x_B08.jp2", stored(3).astype(np.uint8)), r"B08: .*is uint8, expected uint16 or int16"),
        (lambda c: (c / "x_B08.jp2").write_bytes(b"<VRTDataset/>"), "B08: .*not a JPEG 2000"),
    ],
)
def test_bad_single_band_rasters_are_named(tmp_path, spoil, message):
    for i, band in enumerate(BANDS):
        write(tmp_path / f"x_{band}.jp2", stored(i))
    spoil(tmp_path)
    with pytest.raises(ChipError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_jp2_of_several_blocks_is_refused(tmp_path, share):
    for i, band in enumerate(BANDS):
        write(tmp_path / f"x_{band}.jp2", stored(i, 64), BLOCKXSIZE=32, BLOCKYSIZE=32)
    path = tmp_path / "x_B04.jp2"
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ChipError, match=r"B04: .*x_B04\.jp2 cannot be read .*truncated"):
        read(tmp_path)


# --- Sentinel-2 products --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [lambda safe: safe, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("level", "baseline", "offset"),
    [("1C", "02.09", 0), ("1C", "04.00", -1000), ("2A", "03.01", 0), ("2A", "05.11", -1000)],
)
def test_the_offset_of_a_product_is_that_of_its_metadata(tmp_path, pack, level, baseline, offset):
    safe, pixels = write_safe(tmp_path, level, baseline, dict.fromkeys(BANDS, offset) if offset else None)
    path = pack(safe)
    name, kind, says, doubtful = opened(path)
    assert (name, kind, doubtful) == (safe.stem, "safe", False)
    assert f"Sentinel-2 L{level}, baseline {baseline}, quantification 10000, offset {offset:+}" in says
    expected = np.stack([shifted(pixels[band], offset) for band in BANDS])
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(read(path, offset=500), expected)  # the metadata are surer
    np.testing.assert_array_equal(read(tmp_path), expected)  # found below a folder, and nothing inside it again


def test_each_band_has_its_own_offset_and_the_quantification_value_counts(tmp_path):
    safe, pixels = write_safe(tmp_path, offsets={"B02": -1000, "B03": -900, "B04": -800, "B08": 0}, quantification=5000)
    for band, offset, dn in zip(BANDS, (-1000, -900, -800, 0), read(safe), strict=True):
        exact = np.maximum((pixels[band].astype(int) + offset) * 2, 1)
        np.testing.assert_array_equal(dn, np.where(pixels[band] == 0, 0, exact))


def test_bands_of_another_order_and_one_only(tmp_path):
    safe, pixels = write_safe(tmp_path, baseline="03.01")
    np.testing.assert_array_equal(read(safe, ["B08", "B02"]), np.stack([pixels["B08"], pixels["B02"]]))
    np.testing.assert_array_equal(read(safe / "MTD_MSIL2A.xml", ["B04"])[0], pixels["B04"])


def test_a_missing_offset_is_refused_until_it_is_given(tmp_path):
    safe, pixels = write_safe(tmp_path, offsets=None)
    with pytest.raises(
        ChipError, match=r"MTD_MSIL2A\.xml: has the baseline 05\.09 but no BOA_ADD_OFFSET for B02.*1000"
    ):
        read(safe)
    np.testing.assert_array_equal(read(safe, offset=1000)[0], shifted(pixels["B02"], -1000))
    (safe / "MTD_MSIL2A.xml").unlink()
    safe, _ = write_safe(tmp_path, "1C", "05.09", {"B02": -1000, "B03": -1000, "B04": -1000})
    with pytest.raises(ChipError, match=r"no RADIO_ADD_OFFSET for B08"):
        read(safe)


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: next(s.rglob("*_B04_10m.jp2")).unlink(), r"B04: .*_B04_10m\.jp2 is missing"),
        (lambda s: os.truncate(next(s.rglob("*_B04_10m.jp2")), 900), r"B04: .*cannot be read .*truncated"),
        (lambda s: os.truncate(s / "MTD_MSIL2A.xml", 900), r"MTD_MSIL2A\.xml: is not XML .*truncated"),
        (lambda s: (s / "MTD_MSIL2A.xml").unlink(), r"holds neither MTD_MSIL1C\.xml nor MTD_MSIL2A\.xml"),
        (
            lambda s: edit(s / "MTD_MSIL2A.xml", "n1:Level-2A_U", "n1:Level-1B_U"),
            "Level-1B_User_Product, expected Level-2A",
        ),
        (
            lambda s: edit(s / "MTD_MSIL2A.xml", "BOA_QUANT", "XX"),
            "BOA_QUANTIFICATION_VALUE is None, expected a number",
        ),
        (
            lambda s: edit(s / "MTD_MSIL2A.xml", '"none">10000', '"none">0'),
            "BOA_QUANTIFICATION_VALUE is 0, expected more",
        ),
        (lambda s: edit(s / "MTD_MSIL2A.xml", ">GRANULE", ">../GRANULE"), "IMAGE_FILE is .* leads out of the product"),
        (lambda s: edit(s / "MTD_MSIL2A.xml", "B03_10m", "B02_10m"), "lists several images of B02"),
    ],
)
def test_a_bad_product_is_named_with_band_or_metadata(tmp_path, spoil, message):
    safe, _ = write_safe(tmp_path, offsets=dict.fromkeys(BANDS, -1000))
    spoil(safe)
    with pytest.raises(ChipError, match=message):
        read(safe)


def test_bands_without_an_image_of_ten_metres_are_refused(tmp_path):
    safe, _ = write_safe(tmp_path, baseline="03.01")
    with pytest.raises(ChipError, match=r"B11: .*no 10 m image for it: those of B02, B03, B04, B08 are there"):
        read(safe, ["B02", "B11"])
    safe, _ = write_safe(tmp_path, "1C", "03.01")
    with pytest.raises(ChipError, match=r"B11: .*differs from B02: height 24 against 48"):
        read(safe, ["B02", "B11"])


@pytest.mark.parametrize("member", ["../evil.xml", "/etc/evil.xml", "a/../../b", "..\\evil.xml", "C:\\evil.xml"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path, member):
    path = zipped(write_safe(tmp_path, baseline="03.01")[0])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, "x")
    with pytest.raises(ChipError, match="which leads out of it"):
        read(path)


def test_zips_that_are_no_product_are_refused(tmp_path):
    path = zipped(write_safe(tmp_path, baseline="03.01")[0])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("S2B.SAFE/MTD_MSIL2A.xml", "<x/>")
    with pytest.raises(ChipError, match="holds 2 Sentinel-2 products, expected 1"):
        read(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ChipError, match="holds 0 Sentinel-2 products"):
        read(tmp_path / "other.zip")
    os.truncate(path, 4000)
    with pytest.raises(ChipError, match="truncated or not a zip"):
        read(path)


def test_a_truncated_image_inside_a_zip_is_refused(tmp_path):
    safe, _ = write_safe(tmp_path, baseline="03.01")
    os.truncate(next(safe.rglob("*_B03_10m.jp2")), 1500)
    with pytest.raises(ChipError, match=r"B03: .*\.zip cannot be read .*truncated"):
        read(zipped(safe))


# --- Landsat and HLS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["txt", "json"])
@pytest.mark.parametrize(
    "product", ["LC08_L2SP_127041_20180607_20200831_02_T1", "LT05_L2SP_127041_19980607_20200831_02_T1"]
)
def test_landsat_surface_reflectance_by_the_level_2_group(tmp_path, form, product):
    folder, pixels = write_landsat(tmp_path, product, form)
    name, kind, says, doubtful = opened(tmp_path)
    assert (name, kind, doubtful) == (product, "landsat", False)
    assert "L2SP" in says
    assert "DN by scale=2.75e-05,offset=-0.2" in says
    for band, dn in zip(BANDS, read(folder), strict=True):
        exact = np.maximum(np.rint(pixels[band] * 0.275 - 2000), 1)
        np.testing.assert_array_equal(dn, np.where(pixels[band] == 0, 0, exact))


@pytest.mark.parametrize("elevation", [30.0, 8.0])
def test_landsat_top_of_atmosphere_reflectance_is_divided_by_the_suns_sine(tmp_path, elevation):
    folder, pixels = write_landsat(tmp_path, "LC08_L1TP_127041_20180607_20200831_02_T1", elevation=elevation)
    pixels["B02"][20, 20] = 65535
    write(folder / f"{folder.name}_B2.TIF", pixels["B02"], metres=30)
    exact = 10_000 * (2e-5 * pixels["B02"].astype(float) - 0.1) / math.sin(math.radians(elevation))
    expected = np.where(pixels["B02"] == 0, 0, np.rint(exact).clip(1, 65535))
    assert np.abs(read(folder / f"{folder.name}_MTL.txt")[0].astype(float) - expected).max() <= 1


def test_landsat_without_metadata_goes_by_the_tags_of_its_files(tmp_path):
    folder, pixels = write_landsat(tmp_path, form="")
    with pytest.raises(ChipError, match=r"B02: .*_SR_B2\.TIF declares neither scale nor offset"):
        read(folder)
    for path in folder.glob("*_SR_B[2-5].TIF"):
        with rasterio.open(path) as file:
            values = file.read(1)
        write(path, values, metres=30, scale=2.75e-5, offset=-0.2, nodata=0)
    expected = np.where(pixels["B08"] == 0, 0, np.maximum(np.rint(pixels["B08"] * 0.275 - 2000), 1))
    np.testing.assert_array_equal(read(folder)[3], expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda g: g["PRODUCT_CONTENTS"].update(COLLECTION_NUMBER="01"), "collection 01 and level L2SP, expected Coll"),
        (lambda g: g.pop("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"), "lacks the group LEVEL2_SURFACE_REFLECTANCE_PARAM"),
        (lambda g: g.pop("PRODUCT_CONTENTS"), "lacks the group PRODUCT_CONTENTS: truncated"),
        (lambda g: g["PRODUCT_CONTENTS"].pop("FILE_NAME_BAND_5"), "B08: .*FILE_NAME_BAND_5 = None"),
        (lambda g: g["PRODUCT_CONTENTS"].update(FILE_NAME_BAND_2="../x.TIF"), "B02: .*= ../x.TIF, expected the name"),
        (
            lambda g: g["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"].pop("REFLECTANCE_ADD_BAND_3"),
            "REFLECTANCE_ADD_BAND_3 is None, expected a number",
        ),
    ],
)
def test_bad_landsat_metadata_are_named(tmp_path, spoil, message):
    folder, _ = write_landsat(tmp_path)
    groups = mtl(folder.name, [2, 3, 4, 5], (2e-5, -0.1), 30.0)
    spoil(groups)
    (folder / f"{folder.name}_MTL.txt").write_text(mtl_text(groups))
    with pytest.raises(ChipError, match=message):
        read(folder)


def test_bad_landsat_files_and_a_low_sun_are_named(tmp_path):
    folder, _ = write_landsat(tmp_path)
    (folder / f"{folder.name}_SR_B4.TIF").unlink()
    with pytest.raises(ChipError, match=r"B04: .*_SR_B4\.TIF is missing"):
        read(folder)
    with pytest.raises(ChipError, match="B06: LANDSAT_8 has no such band"):
        read(folder, ["B06"])
    folder, _ = write_landsat(tmp_path, "LC08_L1TP_127041_20180607_20200831_02_T1", elevation=-3.0)
    with pytest.raises(ChipError, match="SUN_ELEVATION is -3, expected more than 0"):
        read(folder)


@pytest.mark.parametrize("product", ["S30", "L30"])
def test_hls_granules_have_their_own_names_of_bands_and_fill(tmp_path, product):
    folder, pixels = write_hls(tmp_path, product)
    name, kind, says, doubtful = opened(tmp_path)
    assert (name, kind, doubtful) == (folder.name, "hls", False)
    assert f"HLS {product}" in says
    for band, dn in zip(BANDS, read(folder), strict=True):
        expected = np.where(pixels[band] == -9999, 0, np.maximum(pixels[band], 1))
        np.testing.assert_array_equal(dn, expected)


def test_bad_hls_granules_are_named(tmp_path):
    folder, _ = write_hls(tmp_path, "L30")
    with pytest.raises(ChipError, match=r"B05: HLS L30 has no such band: B01, B02"):
        read(folder, ["B02", "B05"])
    next(folder.glob("*B05.tif")).unlink()
    with pytest.raises(ChipError, match=r"B08: .*\.B05\.tif is missing"):
        read(folder)


# --- rasters of several bands ---------------------------------------------------------------------------------------

STACKED = np.stack([stored(i) for i in range(5)])


@pytest.mark.parametrize(
    "descriptions",
    [("B08", "B04", "B03", "B02", "B11"), ("nir", "Red", "green", "blue", "swir16"), ("B8", "b4", "B3", "B2", "x")],
)
@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_bands_of_a_raster_are_chosen_by_their_descriptions(tmp_path, descriptions, driver):
    path = write(tmp_path / "x.tif", STACKED, descriptions=descriptions)
    if driver == "COG":
        gdal_copy(path, tmp_path / "y.tif", driver="COG")
        path = tmp_path / "y.tif"
    assert opened(path)[:2] == (path.stem, "raster")
    np.testing.assert_array_equal(read(path), STACKED[[3, 2, 1, 0]])
    np.testing.assert_array_equal(read(path, numbers=[1, 2, 3, 5]), STACKED[[0, 1, 2, 4]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_scale_offset_and_nodata_of_a_raster_count(tmp_path, dtype):
    scale, offset = (1.0, -0.1) if dtype is np.float32 else (0.0001, -0.1)
    values = (STACKED / (10_000 if dtype is np.float32 else 1)).astype(dtype)
    path = write(tmp_path / "x.tif", values, scale=scale, offset=offset, nodata=0)
    expected = np.stack([shifted(pixels, -1000) for pixels in STACKED[:4]])
    np.testing.assert_array_equal(read(path, numbers=[1, 2, 3, 4]), expected)
    assert opened(path, numbers=[1, 2, 3, 4])[3] is False


def test_the_mask_of_a_raster_counts_for_all_its_bands(tmp_path):
    path = write(tmp_path / "x.tif", STACKED[:4] + 1, descriptions=BANDS, mask=np.tri(SIZE, dtype=bool))
    np.testing.assert_array_equal(read(path) == 0, np.broadcast_to(~np.tri(SIZE, dtype=bool), (4, SIZE, SIZE)))


def test_a_raster_that_does_not_say_its_bands_is_refused_with_the_remedy(tmp_path):
    path = write(tmp_path / "x.tif", STACKED)
    with pytest.raises(ChipError, match=r"B02: .*calls its 5 bands \(nothing\), .*`--bands 1,2,3,4`"):
        read(path)
    for numbers in ([1, 2, 3], [1, 2, 3, 6], [0, 1, 2, 3]):
        with pytest.raises(
            ChipError, match=r"has 5 bands and cannot give bands .*give one number from 1 to 5 for each"
        ):
            read(path, numbers=numbers)
    write(tmp_path / "y.tif", STACKED[:4], descriptions=("B02", "B02", "B04", "B08"))
    with pytest.raises(ChipError, match=r"B02: .*calls its 4 bands B02, B02"):
        read(tmp_path / "y.tif")


def vrt(path, sources, relative=True):
    """A stack as `gdalbuildvrt -separate` writes it."""
    bands = "".join(
        f"""
  <VRTRasterBand dataType="UInt16" band="{i}">
    <Description>{band}</Description>
    <SimpleSource>
      <SourceFilename relativeToVRT="{int(relative)}">{source}</SourceFilename>
      <SourceBand>1</SourceBand>
      <SourceProperties RasterXSize="{SIZE}" RasterYSize="{SIZE}" DataType="UInt16" BlockXSize="{SIZE}" />
      <SrcRect xOff="0" yOff="0" xSize="{SIZE}" ySize="{SIZE}" />
      <DstRect xOff="0" yOff="0" xSize="{SIZE}" ySize="{SIZE}" />
    </SimpleSource>
  </VRTRasterBand>"""
        for i, (band, source) in enumerate(zip(BANDS, sources, strict=True), 1)
    )
    path.write_text(f"""<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">
  <SRS dataAxisToSRSAxisMapping="1,2">EPSG:32632</SRS>
  <GeoTransform>  6.0e+05,  1.0e+01,  0.0e+00,  5.00004e+06,  0.0e+00, -1.0e+01</GeoTransform>{bands}
</VRTDataset>
""")
    return path


def test_a_vrt_of_files_beside_it_is_read(tmp_path):
    pixels = chip(tmp_path / "c0")
    path = vrt(tmp_path / "s.vrt", [f"c0/{band}.tif" for band in BANDS])
    np.testing.assert_array_equal(read(path), np.stack(list(pixels.values())))
    write(tmp_path / "m.tif", STACKED, descriptions=(*BANDS, "x"))
    gdal_copy(tmp_path / "m.tif", tmp_path / "m.vrt", driver="VRT")
    np.testing.assert_array_equal(read(tmp_path / "m.vrt"), STACKED[:4])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("c0/B02.tif<", "/vsicurl/http://127.0.0.1:9/B02.tif<", "is not a local file"),
        ('relativeToVRT="1">c0/B02.tif', ">http://127.0.0.1:9/B02.tif", "is not a local file"),
        ("c0/B02.tif<", "c0/inner.tif<", "neither a TIFF nor a JPEG 2000"),
        ("SourceFilename", "sourcefilename", None),
        ('band="1"', 'band="1" subClass="VRTDerivedRasterBand"', r"does more than .*subClass"),
        ("<SourceBand>1<", "<PixelFunctionType>1<", "does more than|is not XML"),
        ("<VRTDataset", '<!DOCTYPE x [<!ENTITY y "z">]><VRTDataset', "has XML declarations"),
        ("</VRTDataset>", "", "is not XML"),
    ],
)
def test_a_vrt_that_names_anything_but_files_is_refused(tmp_path, before, after, message):
    pixels = chip(tmp_path / "c0")
    vrt(tmp_path / "c0" / "inner.tif", [f"{band}.tif" for band in BANDS])
    path = vrt(tmp_path / "s.vrt", [f"c0/{band}.tif" for band in BANDS])
    edit(path, before, after)
    if message is None:
        np.testing.assert_array_equal(read(path)[0], pixels["B02"])
        return
    with pytest.raises(ChipError, match=message):
        read(path)


# --- finding --------------------------------------------------------------------------------------------------------


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
