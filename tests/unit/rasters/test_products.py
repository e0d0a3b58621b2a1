"""Products of Sentinel-2, Landsat and HLS: what they hold becomes DN, and what is wrong with them is named."""

from __future__ import annotations

import math
import os
import re
import zipfile

import numpy as np
import pytest
import rasterio

from cloudcover.data.chips import ChipError
from cloudcover.rasters.find import find_images
from helpers.images import opened, read, shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, edit, mtl, mtl_text, stored, write, write_hls, write_landsat, write_safe, zipped

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


def test_a_level_2a_product_with_the_elements_from_before_october_2018(tmp_path):
    """PSD 14.2, baselines 02.04 to 02.08."""
    safe, pixels = write_safe(tmp_path, baseline="02.06", quantification=5000)
    for before, after in (
        ("Product_Info>", "L2A_Product_Info>"),
        ("IMAGE_FILE>", "IMAGE_FILE_2A>"),
        ("QUANTIFICATION_VALUES_LIST>", "L1C_L2A_Quantification_Values_List>"),
        ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"),
    ):
        edit(safe / "MTD_MSIL2A.xml", before, after)
    np.testing.assert_array_equal(read(safe)[1], np.where(pixels["B03"] == 0, 0, pixels["B03"] * 2))


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
    np.testing.assert_array_equal(
        read(safe, offset=0)[0], pixels["B02"]
    )  # Sen2Cor before 2.10 gives the baseline 99.99
    (safe / "MTD_MSIL2A.xml").unlink()
    safe, _ = write_safe(tmp_path, "1C", "05.09", {"B02": -1000, "B03": -1000, "B04": -1000})
    with pytest.raises(ChipError, match=r"no RADIO_ADD_OFFSET for B08"):
        read(safe)


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
        (lambda s: edit(s / "MTD_MSIL2A.xml", "UTF-8", "none"), "is not XML .*unknown encoding"),
        (lambda s: edit(s / "MTD_MSIL2A.xml", "UTF-8", "utf-32"), "is not XML .*multi-byte"),
    ],
)
def test_a_bad_product_is_named_with_band_or_metadata(tmp_path, spoil, message):
    safe, _ = write_safe(tmp_path, offsets=dict.fromkeys(BANDS, -1000))
    spoil(safe)
    with pytest.raises(ChipError, match=message):
        read(safe)


def test_a_band_without_an_image_of_ten_metres_is_resampled_and_one_without_any_is_refused(tmp_path):
    for level in ("1C", "2A"):
        safe, pixels = write_safe(tmp_path / level, level, "03.01")
        dn = read(safe, ["B02", "B11"])
        np.testing.assert_array_equal(dn[0], pixels["B02"])
        assert dn[1].shape == (SIZE, SIZE)
        assert "B11 resampled from 20 to 10" in opened(safe, ["B02", "B11"])[2]
        with pytest.raises(ChipError, match=r"B99: .*lists no image of it: those of B02, B03, B04, .*are there"):
            read(safe, ["B02", "B99"])


@pytest.mark.parametrize(("user", "level", "metres"), [("OPER", "1C", ""), ("USER", "2A", "_10m")])
def test_a_product_of_the_old_format_is_refused_with_the_remedy(tmp_path, user, level, metres):
    """PSD 13; Level-2A is Sen2Cor's."""
    safe = tmp_path / f"S2A_{user}_PRD_MSIL{level}_PDMC_20160504T225644_R094_V20160504T105917_20160504T105917.SAFE"
    tile = f"S2A_{user}_MSI_L{level}_TL_SGS__20160504T163055_A004524_T32TQM"
    folder = safe / f"GRANULE/{tile}_N02.02/IMG_DATA"
    for i, band in enumerate(BANDS):
        write(folder / ("R10m" if metres else "") / f"{tile}_{band}{metres}.jp2", stored(i))
    with pytest.raises(ChipError, match=r"before December 2016 are not read as a whole; name the folder IMG_DATA"):
        read(safe)
    np.testing.assert_array_equal(read(folder)[1], stored(1))


@pytest.mark.parametrize("member", ["{}/", "data/{}/", ""])
def test_a_zip_may_hold_a_product_at_any_depth(tmp_path, member):
    safe, pixels = write_safe(tmp_path, baseline="03.01")
    with zipfile.ZipFile(tmp_path / "x.ZIP", "w") as archive:
        for path in safe.rglob("*"):
            archive.write(path, member.format(safe.name) + str(path.relative_to(safe)))
        archive.writestr(f"__MACOSX/{safe.name}/._MTD_MSIL2A.xml", "x")
    np.testing.assert_array_equal(read(tmp_path / "x.ZIP")[0], pixels["B02"])


def test_a_product_unpacked_into_a_folder_of_its_own_name(tmp_path):
    safe, pixels = write_safe(tmp_path / "there", baseline="03.01")
    outer = tmp_path / "here" / safe.name
    outer.mkdir(parents=True)
    safe.rename(outer / safe.name)
    for path in (outer, tmp_path / "here"):
        np.testing.assert_array_equal(read(path)[0], pixels["B02"])


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


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (6, 200, "zip file version"),
        (8, 1, "is encrypted"),
        (10, 99, "compression method"),
        (42, 9, "local file|header"),
    ],
)
def test_zips_that_cannot_be_read_are_refused(tmp_path, place, value, message):
    """Changed in each entry of the central directory: version, flags, method, offset of the file."""
    path = zipped(write_safe(tmp_path, baseline="03.01")[0])
    content = bytearray(path.read_bytes())
    for entry in re.finditer(b"PK\x01\x02", bytes(content)):
        content[entry.start() + place] = value
    path.write_bytes(content)
    with pytest.raises(ChipError, match=rf"cannot be read .*({message})"):
        read(path)


def test_damaged_metadata_in_a_zip_are_named(tmp_path):
    path = zipped(write_safe(tmp_path, baseline="03.01")[0])
    with zipfile.ZipFile(path) as archive:
        (entry,) = [entry for entry in archive.infolist() if entry.filename.endswith("MTD_MSIL2A.xml")]
    content = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    content[start + 40 : start + 70] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(ChipError, match=r"MTD_MSIL2A\.xml: cannot be read from .*\.zip"):
        read(path)


@pytest.mark.parametrize("folder", ["a b", "ä{b", "{}", "x}"])
def test_a_zip_in_a_folder_of_any_name(tmp_path, folder):
    safe, pixels = write_safe(tmp_path / folder, baseline="03.01")
    np.testing.assert_array_equal(read(zipped(safe))[0], pixels["B02"])


def test_a_truncated_image_inside_a_zip_is_refused(tmp_path):
    safe, _ = write_safe(tmp_path, baseline="03.01")
    os.truncate(next(safe.rglob("*_B03_10m.jp2")), 1500)
    with pytest.raises(ChipError, match=r"B03: .*\.zip cannot be read .*truncated"):
        read(zipped(safe))


# --- Landsat and HLS ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
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


def test_products_of_a_folder_are_found_with_metadata_or_without(tmp_path):
    folder, _ = write_landsat(tmp_path)
    other = folder.name.replace("127041", "127042")
    for number in (2, 3, 4, 5):
        write(folder / f"{other}_SR_B{number}.TIF", stored(number), metres=30, scale=2.75e-5, offset=-0.2, nodata=0)
    write(folder / f"{other}_ST_B10.TIF", stored(10), metres=30)
    assert [image.name for image in find_images([tmp_path], BANDS)] == [folder.name, other]


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


def test_names_of_files_in_another_case(tmp_path):
    landsat, _ = write_landsat(tmp_path / "a")
    expected = read(landsat)
    untagged, _ = write_landsat(tmp_path / "b", form="")
    hls, signed = write_hls(tmp_path / "c", "L30")
    for folder in (landsat, untagged, hls):
        for path in list(folder.iterdir()):
            path.rename(folder / (path.name.upper() if folder == hls else path.name.lower()))
    np.testing.assert_array_equal(read(landsat), expected)
    with pytest.raises(ChipError, match=r"sr_b2\.tif declares neither scale nor offset"):
        read(untagged)
    np.testing.assert_array_equal(read(hls)[3] == 0, signed["B08"] == -9999)


def test_multispectral_scanners_have_no_blue_and_are_refused(tmp_path):
    for form in ("txt", ""):
        folder, _ = write_landsat(tmp_path / f"x{form}", "LT05_L1TP_127041_19880607_20200831_02_T1", form)
        for path in list(folder.iterdir()):
            path.rename(folder / path.name.replace("LT05", "LM05"))
        if form:
            edit(folder / "LM05_L1TP_127041_19880607_20200831_02_T1_MTL.txt", "OLI_TIRS", "MSS")
        with pytest.raises(ChipError, match=r"LM05_.*: is of the sensor MSS, .* no blue"):
            read(folder)


def test_landsat_from_before_the_collections_does_not_pass_for_sentinel_2(tmp_path):
    """Band 8 is panchromatic there."""
    for number in (2, 3, 4, 5, 8):
        write(tmp_path / f"LC80440342017165LGN00_B{number}.TIF", stored(number), metres=30)
    with pytest.raises(ChipError, match="LC80440342017165LGN00: is from before Landsat's Collection 2: download"):
        read(tmp_path)


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
