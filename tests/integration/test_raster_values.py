"""What a raster says of its pixels: scale, offset, nodata, mask and place are respected or refused, never ignored."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from cloudcover.data.chips import ChipError, read_band, read_chip, read_mask
from cloudcover.data.offsets import suspected_offset
from cloudcover.evaluate.score import compare
from helpers.layouts import BANDS
from helpers.values import TAGS, bring, write

# --- one band -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_pixel_is_the_reflectance_that_the_file_states(data):
    """Against the definition, pixel by pixel."""
    values = st.integers(0, 65535)
    stored = np.array(data.draw(st.lists(values | st.sampled_from([0, 1, 1000, 65535]), min_size=12, max_size=12)))
    stored = stored.reshape(3, 4).astype(np.uint16)
    tag = data.draw(st.none() | st.sampled_from([0, 65535, int(stored[0, 0])]) | values)
    scale = data.draw(st.sampled_from([1.0, 0.0001, 0.00005, 2.75e-5]) | st.floats(1e-6, 1e-4))
    offset = data.draw(st.just(0.0) | (st.integers(-2000, 0) if scale == 1 else st.floats(-0.3, 0.0)))
    lost = data.draw(st.sampled_from([0, 1000]))
    nodata = data.draw(st.sampled_from([0, 65535]) | values)
    mask = data.draw(st.none() | st.lists(st.booleans(), min_size=12, max_size=12))
    mask = None if mask is None else np.array(mask).reshape(3, 4)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "B02.tif", stored, tag, scale, offset, mask)
        read, _, _ = read_band(path, "B02", nodata, lost)
        factor = 1 if scale == 1 or np.isclose(scale, 0.0001, rtol=1e-6, atol=0) else 10_000 * scale
        untouched = mask is None and tag in (None, nodata) and not lost and factor == 1 and not offset
    assert read.dtype == np.uint16
    for index in np.ndindex(3, 4):
        value, dn = int(stored[index]), int(read[index])
        if untouched:
            assert dn == value
            continue
        if (mask is not None and not mask[index]) or value == tag or (tag is None and mask is None and value == nodata):
            assert dn == nodata
        else:
            assert dn != nodata, "a pixel with data became one without"
            if offset:
                exact = value + offset if scale == 1 else 10_000 * (scale * value + offset)
            else:
                exact = (value - lost) * (1 if scale == 1 else 10_000 * scale)
            assert abs(dn - max(exact, 1)) <= 0.51 + (max(round(exact), 1) == nodata)


def test_a_plain_file_is_read_as_it_is_and_says_nothing(tmp_path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for tags in ({}, {"nodata": 0}, {"scale": 0.0001}, {"nodata": 0, "scale": 0.0001}):
        read, _, conversion = read_band(write(tmp_path / "B02.tif", pixels, **tags), "B02", 0, 0)
        np.testing.assert_array_equal(read, pixels)
        assert conversion == ""


def test_the_real_chips_are_read_as_they_are(real_chips):
    for folder in sorted(real_chips.glob("*_features/*")):
        chip = read_chip(folder, None, BANDS, (512, 512), nodata=0, offset=0)
        for band, pixels in zip(BANDS, chip.bands, strict=True):
            with rasterio.open(folder / f"{band}.tif") as source:
                np.testing.assert_array_equal(pixels, source.read(1))
        assert chip.conversion == ""
        assert not suspected_offset(chip.bands, 0)


def test_a_nodata_value_that_the_dtype_cannot_hold_says_nothing(tmp_path):
    pixels = np.array([[0, 5]], np.uint16)
    path = write(tmp_path / "B02.tif", pixels)
    (tmp_path / "B02.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert read_band(path, "B02", 0, 0)[0].tolist() == [[0, 5]]


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_inside_or_beside_the_file_counts(tmp_path, internal):
    valid = np.ones((3, 4), bool)
    valid[1] = False
    path = write(tmp_path / "B02.tif", np.full((3, 4), 700, np.uint16), mask=valid, internal=internal)
    assert (tmp_path / "B02.tif.msk").exists() != internal
    assert (read_band(path, "B02", 0, 0)[0] == np.where(valid, 700, 0)).all()


@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [
        (0.0, -0.1, r"has the scale 0 and the offset -0\.1: expected a positive scale"),
        (-0.0001, 0.0, r"has the scale -0\.0001 and the offset 0"),
        (0.01, 0.5, r"scale 0\.01 and the offset 0\.5, by which its largest value 3000 would be 305000 DN"),
        (float("nan"), 0.0, "has the scale nan and the offset 0"),
    ],
)
def test_scales_and_offsets_that_make_no_sense_are_refused_with_both_values(tmp_path, scale, offset, message):
    path = write(tmp_path / "B02.tif", np.full((3, 4), 3000, np.uint16), scale=scale, offset=offset)
    with pytest.raises(ChipError, match=message):
        read_band(path, "B02", 0, 0)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_another_dtype_is_refused_with_both_names_whatever_the_tags(tmp_path, dtype):
    path = write(tmp_path / "B02.tif", np.ones((3, 4), dtype), **TAGS)
    with pytest.raises(ChipError, match=f"B02.tif is {dtype}, expected uint16: write DN as uint16, that is") as error:
        read_band(path, "B02", 0, 0)
    assert ("--as bands` reads it as it is" in str(error.value)) == (dtype != "uint8")
    with pytest.raises(ChipError, match="is int16, expected uint8: write 0 for clear, 1 for cloud and 255 for unknown"):
        read_mask(write(tmp_path / "l.tif", np.ones((3, 4), np.int16)), "label")


def test_a_band_with_alpha_is_refused(tmp_path):
    profile = {"driver": "GTiff", "count": 2, "dtype": "uint16", "height": 3, "width": 4, "alpha": "yes"}
    with rasterio.open(tmp_path / "B02.tif", "w", **profile) as output:
        output.write(np.ones((2, 3, 4), np.uint16))
    with pytest.raises(ChipError, match="has 2 bands, expected 1"):
        read_band(tmp_path / "B02.tif", "B02", 0, 0)


def test_a_raster_placed_by_ground_control_points_is_refused(tmp_path):
    points = [GroundControlPoint(r, c, 5e5 + 10 * c, 5e6 - 10 * r) for r, c in ((0, 0), (0, 9), (9, 0), (9, 9))]
    root = tmp_path / "set"
    for folder in ("train_features/c0", "train_labels"):
        (root / folder).mkdir(parents=True)
    profile = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "gcps": points, "crs": "EPSG:32633"}
    band, label = root / "train_features/c0/B02.tif", root / "train_labels/c0.tif"
    for path, dtype in ((band, "uint16"), (label, "uint8")):
        with rasterio.open(path, "w", dtype=dtype, **profile) as output:
            output.write(np.ones((64, 64), dtype), 1)
    message = "is georeferenced by 4 ground control points.*gdalwarp"
    with pytest.raises(ChipError, match=message):
        read_band(band, "B02", 0, 0)
    with pytest.raises(ChipError, match=message):
        read_mask(label, "label")
    (root / "train_metadata.csv").write_text("chip_id,location,datetime,cloudpath\nc0,a,2020-01-01T00:00:00Z,\n")
    with pytest.raises(ChipError, match=message):
        bring(root, tmp_path / "out", tile=True, chip_size=32, bands=["B02"])


def test_a_raster_placed_by_an_rpc_model_is_refused_with_the_remedy(tmp_path):
    numbers = {f"{axis}_{what}": 1.0 for axis in ("height", "lat", "long", "line", "samp") for what in ("off", "scale")}
    rows = {f"{axis}_{part}_coeff": [1.0] * 20 for axis in ("line", "samp") for part in ("num", "den")}
    path = tmp_path / "B02.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=4, width=4, dtype="uint16") as output:
        output.write(np.ones((4, 4), np.uint16), 1)
        output.rpcs = RPC(**numbers, **rows)
    with pytest.raises(ChipError, match=r"georeferenced by an RPC model, expected an affine .*gdalwarp -rpc IN OUT"):
        read_band(path, "B02", 0, 0)


# --- labels and masks -----------------------------------------------------------------------------------------------


def test_a_label_whose_nodata_tag_hides_its_pixels_is_refused_with_the_remedy(tmp_path):
    pixels = np.array([[0, 0, 1]], np.uint8)
    with pytest.raises(ChipError, match=r"declares nodata 0, expected 255 .* 2 pixels hold 0.*-unsetnodata"):
        read_mask(write(tmp_path / "l.tif", pixels, nodata=0), "label")
    with pytest.raises(ChipError, match=r"declares nodata 1, expected 255 .* 1 pixels hold 1"):
        read_mask(write(tmp_path / "l.tif", pixels, nodata=1), "label")
    for harmless in (None, 255, 7):
        assert read_mask(write(tmp_path / "l.tif", pixels, nodata=harmless), "label")[0].tolist() == pixels.tolist()
    ones = np.ones((1, 3), np.uint8)
    assert read_mask(write(tmp_path / "l.tif", ones, nodata=0), "label")[0].tolist() == ones.tolist()


def test_pixels_outside_the_mask_of_a_label_are_unknown(tmp_path):
    path = write(tmp_path / "l.tif", np.array([[0, 7, 1]], np.uint8), mask=np.array([[True, False, True]]))
    assert read_mask(path, "label")[0].tolist() == [[0, 255, 1]]


def test_a_scaled_label_is_refused_with_both_values(tmp_path):
    path = write(tmp_path / "l.tif", np.array([[0, 1]], np.uint8), scale=255.0)
    with pytest.raises(ChipError, match="has the scale 255 and the offset 0, expected 1 and 0"):
        read_mask(path, "label")


def test_score_refuses_a_nodata_tag_that_hides_pixels(tmp_path):
    pixels = np.array([[0, 0, 1]], np.uint8)
    write(tmp_path / "labels" / "a.tif", pixels)
    write(tmp_path / "masks" / "a.tif", pixels, nodata=0)
    with pytest.raises(ChipError, match=r"masks/a\.tif declares nodata 0"):
        compare(tmp_path / "masks", tmp_path / "labels")


def test_score_names_labels_of_other_formats_that_it_leaves_out(tmp_path, caplog):
    for folder in ("labels", "masks"):
        write(tmp_path / folder / "a.tif", np.array([[0, 0, 1]], np.uint8))
    for beside in ("a.tif.aux.xml", "a.png", "notes.txt", ".hidden.png"):
        (tmp_path / "labels" / beside).touch()
    compare(tmp_path / "masks", tmp_path / "labels")
    assert not caplog.records
    for other in ("b.png", "c.jp2"):
        (tmp_path / "labels" / other).touch()
    compare(tmp_path / "masks", tmp_path / "labels")
    assert "2 files in" in caplog.text
    assert "are no GeoTIFFs and left out: b.png, c.jp2" in caplog.text


def test_score_refuses_to_compare_a_folder_with_itself(tmp_path):
    write(tmp_path / "labels" / "a.tif", np.array([[0, 0, 1]], np.uint8))
    (tmp_path / "masks").symlink_to("labels")
    with pytest.raises(ValueError, match="are the same folder"):
        compare(tmp_path / "masks", tmp_path / "labels")
