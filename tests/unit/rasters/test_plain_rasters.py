"""Chips, single-band files and rasters of several bands: what they hold becomes DN, and what is wrong is named."""

from __future__ import annotations

import math
import os
import pickle
import shutil

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.shutil import copy as gdal_copy

from cloudcover.data.chips import ChipError
from cloudcover.data.values import Stored, as_dn
from cloudcover.rasters.find import find_images
from helpers.images import opened, read, shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, TILE, chip, edit, stored, write

WHOLE = slice(0, SIZE)
STACKED = np.stack([stored(i) for i in range(5)])


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
        (np.array([0.2, 1200], np.float32), r"largest value 1200\.0 would be 12000000 DN.*-scale 0\.0001"),
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
        (lambda c: write(c / "B03.tif", stored(1, 24), metres=30), r"B03: .*differs from B02: height 24 against 48"),
        (lambda c: write(c / "B03.tif", stored(1), metres=20), "B03: .*differs from B02: transform"),
        (
            lambda c: write(c / "B03.tif", stored(1).astype(np.float32)),
            "B03: .*is float32, expected uint16: write DN .*--as bands` reads it",
        ),
        (lambda c: write(c / "B03.tif", np.stack([stored(1)] * 2)), r"B03: .*has 2 bands, expected 1"),
        (
            lambda c: write(c / "B03.tif", stored(1), driver="PNG", crs=None),
            "cannot be read .*truncated or not a GeoTIFF",
        ),
        (lambda c: os.truncate(c / "B03.tif", 3000), r"B03: .*cannot be read .*truncated or not a GeoTIFF"),
        (lambda c: shutil.copy(c / "B03.tif", c / "B03.TIFF"), r"B03.*have the same name"),
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


@pytest.mark.parametrize(
    ("dtype", "nodata", "mask"), [("uint16", None, False), ("float32", -1, False), ("uint16", None, True)]
)
def test_pixels_have_no_data_where_an_alpha_band_is_transparent(tmp_path, dtype, nodata, mask):
    """`gdalwarp -dstalpha` adds such a band; GDAL itself takes it for a mask only after one or three others."""
    bands = np.stack([*(np.full((4, 4), 900 + i) for i in range(4)), np.full((4, 4), 255)])
    bands[:4, 0], bands[4, 1], bands[4, 2] = 0, 0, 1
    values = (bands / np.array([10_000.0] * 4 + [1])[:, None, None] if dtype == "float32" else bands).astype(dtype)
    profile = {"driver": "GTiff", "count": 5, "height": 4, "width": 4, "dtype": dtype, "nodata": nodata}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "x.tif", "w", **profile) as output:
        output.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * 3, ColorInterp.alpha]
        output.write(values)
        if mask:
            output.write_mask(np.array([[True, True, True, False]] * 4))
    dn = read(tmp_path / "x.tif", numbers=[1, 2, 3, 4])
    assert dn[:, 1].tolist() == [[0] * 4] * 4
    assert dn[:, 2, :3].tolist() == [[900 + i] * 3 for i in range(4)]
    assert (dn[:, 2, 3] == 0).all() == mask
    assert (dn[:, 0, :3] == 0).all() == (nodata is None and not mask)  # zeros have data if the file declares others
    with pytest.raises(ChipError, match=r"x\.tif has alpha \(transparency\) as band 5, which is no reflectance"):
        read(tmp_path / "x.tif", numbers=[1, 2, 3, 5])


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
        (lambda c: write(c / "x_B08.jp2", stored(3, 24), metres=19), "B08: .*differs from B02: height 24 against 48"),
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


# --- rasters of several bands ---------------------------------------------------------------------------------------


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


def test_a_scale_is_given_for_files_that_declare_none(tmp_path):
    """Composites of Google Earth Engine are DN as floating-point numbers."""
    path = write(tmp_path / "x.tif", STACKED[:4].astype(np.float64), descriptions=("B2", "B3", "B4", "B8"), nodata=0)
    with pytest.raises(ChipError, match=r"B02: .*x\.tif .* if these are DN, give the scale 0\.0001"):
        read(path)
    np.testing.assert_array_equal(read(path, scale=0.0001), STACKED[:4])
    np.testing.assert_array_equal(read(path, scale=0.0001, offset=1000), shifted(STACKED[:4], -1000))
    path = write(tmp_path / "y.tif", STACKED[:4], descriptions=("blue", "green", "red", "nir08"), scale=0.0001)
    np.testing.assert_array_equal(read(path, scale=0.5), STACKED[:4])  # its own tag is surer


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


@pytest.mark.parametrize("first", ["B02", "B11"])
def test_bands_of_larger_pixels_are_resampled_to_the_smallest_wherever_they_stand(tmp_path, first):
    ramp = np.add.outer(np.arange(24), np.arange(24) * 10).astype(np.uint16) + 1000
    write(tmp_path / "x_B02.tif", stored(0))
    write(tmp_path / "x_B11.tif", ramp, metres=20, scale=0.0002, offset=-0.1)
    bands = [first, "B02" if first == "B11" else "B11"]
    dn = read(tmp_path, bands)
    np.testing.assert_array_equal(dn[bands.index("B02")], stored(0))
    rows, columns = np.mgrid[:SIZE, :SIZE] / 2 - 0.25  # centres of the small pixels among those of the large ones
    expected = (1000 + rows + columns * 10) * 2 - 1000
    inside = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(dn[bands.index("B11")][inside].astype(float), expected[inside], atol=2)
    (found,) = find_images([tmp_path], bands)
    with found.open() as image:  # a window is what it is in the whole
        np.testing.assert_array_equal(image.read(slice(7, 31), slice(9, 20)), dn[:, 7:31, 9:20])


def test_pixels_without_data_stay_so_when_they_are_resampled(tmp_path):
    write(tmp_path / "x_B02.tif", stored(0, low=500))
    coarse = np.full((24, 24), 700, np.uint16)
    coarse[3:9, 4:7] = 0
    write(tmp_path / "x_B11.tif", coarse, metres=20)
    dn = read(tmp_path, ["B02", "B11"])[1]
    assert set(np.unique(dn)) == {0, 700}
    assert (dn[6:18, 8:14] == 0).all()


def test_a_band_with_a_mask_of_its_own_is_not_resampled(tmp_path):
    write(tmp_path / "x_B02.tif", stored(0))
    write(tmp_path / "x_B11.tif", stored(1, 24), metres=20, mask=np.tri(24, dtype=bool))
    with pytest.raises(ChipError, match=r"B11: .*has its own mask and pixels of 20, not 10: resample it"):
        read(tmp_path, ["B02", "B11"])
