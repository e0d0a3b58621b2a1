"""What a raster says of its pixels: scale, offset, nodata, mask and place are respected or refused, never ignored."""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import MaskFlags
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, InputParams, ModelParams, SyntheticParams
from cloudcover.data.chips import ChipError, read_band, read_chip, read_mask
from cloudcover.data.layout import LayoutError, write_file_table
from cloudcover.data.offsets import suspected_offset
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.evaluate.score import compare
from cloudcover.models.build import build_model
from cloudcover.models.folder import ModelCard, save_model
from cloudcover.predict.images import predict_images
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import Predictor
from cloudcover.rasters.find import find_images
from cloudcover.sources.fetch import fetch
from cloudcover.synthetic.generate import generate
from helpers.layouts import BANDS, make_layout
from helpers.paths import SHARED

TAGS = {"scale": 0.0001, "offset": -0.1}
"""Of a Sentinel-2 product of processing baseline 04.00."""


def write(path, pixels, nodata=None, scale=1.0, offset=0.0, mask=None, internal=True):
    """Writes a single-band GeoTIFF with tags, and a mask that is True where there are data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "nodata": nodata, "crs": "EPSG:32633"}
    profile |= {"height": pixels.shape[0], "width": pixels.shape[1], "transform": from_origin(5e5, 5e6, 10, 10)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "w", **profile) as output:
        output.write(pixels, 1)
        if (scale, offset) != (1, 0):
            output.scales, output.offsets = [scale], [offset]
        if mask is not None:
            output.write_mask(mask)
    return path


def rewrite(path, change=lambda pixels: pixels, **tags):
    with rasterio.open(path) as source:
        pixels = source.read(1)
    return write(path, change(pixels).astype(pixels.dtype), **tags)


def shifted(root, **tags):
    """Adds 1000 to the DN of all bands below a folder."""
    for path in root.rglob("B*.tif"):
        rewrite(path, lambda pixels: pixels + 1000, **tags)


def darkened(root):
    """Makes all bands below a folder begin as dark as vegetation and water do."""
    for path in root.rglob("B*.tif"):
        rewrite(path, lambda pixels: pixels // 4)


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


# --- predict --------------------------------------------------------------------------------------------------------


@pytest.fixture
def predictor(tmp_path):
    """A network of random weights whose threshold halves the pixels of the set `tmp_path/set`."""
    make_layout(tmp_path / "set", chips=2, size=96, unlabelled=0)
    darkened(tmp_path / "set")
    params = ModelParams.model_validate({"encoder": "tu-mobilenetv3_small_050", "decoder_channels": [8] * 5})
    values = params.model_dump(include={"architecture", "encoder", "decoder_channels"}) | {
        "bands": BANDS, "nodata": 0, "input": InputParams.model_validate({}), "chip_size": 96, "fingerprint": "",
        "run": "round1", "fold": 0, "seed": 0,
    }  # fmt: skip
    network = build_model(params, BANDS, pretrained=False)
    save_model(tmp_path / "model", network, ModelCard.model_validate(values))
    folders = [Path(chip.place) for chip in find_images([tmp_path / "set"], BANDS)]
    chips = np.stack([read_chip(folder, None, BANDS, (96, 96)).bands for folder in folders])
    median = float(np.median(Predictor([tmp_path / "model"]).probabilities(chips, np.zeros((2, 4, 2), np.float32))))
    save_model(tmp_path / "model", network, ModelCard.model_validate(values | {"threshold": median}))
    return Predictor([tmp_path / "model"])


def masks(predictor, folder, out, **options):
    read = {}
    for path in predict_images(predictor, find_images([folder], BANDS, **options), Outputs(out)):
        with rasterio.open(path) as mask:
            read[path.stem] = mask.read(1)
    return read


def same(one, other):
    assert one.keys() == other.keys()
    for chip, mask in one.items():
        np.testing.assert_array_equal(mask, other[chip])


def warnings_in(caplog):
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_chip_with_an_offset_has_the_mask_of_the_one_without_and_is_named(predictor, tmp_path, caplog):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    assert all(0.05 < mask.mean() < 0.95 for mask in plain.values()), "the masks could not tell"
    assert "converted" not in caplog.text
    shifted(tmp_path / "set", **TAGS)
    with caplog.at_level(logging.INFO, "cloudcover"):
        same(masks(predictor, tmp_path / "set", tmp_path / "tagged", offset=1000), plain)  # the tag goes first
    assert "converted 2 chips (c000, c001) to DN by scale=0.0001,offset=-0.1" in caplog.text
    assert "begin near 1000" not in caplog.text


def test_an_offset_without_a_tag_is_suspected_by_name_and_mended_by_the_option(predictor, tmp_path, caplog):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    assert not warnings_in(caplog)
    shifted(tmp_path / "set")
    masks(predictor, tmp_path / "set", tmp_path / "wrong")
    assert "all bands of 2 chips (c000, c001) begin near 1000 DN" in caplog.text
    assert "--offset 1000" in caplog.text
    caplog.clear()
    same(masks(predictor, tmp_path / "set", tmp_path / "right", offset=1000), plain)
    assert not warnings_in(caplog)


def test_nodata_and_masks_of_the_files_are_255_in_the_mask(predictor, tmp_path):
    valid = np.arange(96) >= 32
    for path in (tmp_path / "set").rglob("B*.tif"):
        rewrite(path, lambda pixels: np.where(valid, pixels, 0))
    zeros = masks(predictor, tmp_path / "set", tmp_path / "zeros")
    for number, path in enumerate(sorted((tmp_path / "set").rglob("B*.tif"))):
        marked = {"nodata": 65535} if number < 4 else {"mask": np.broadcast_to(valid, (96, 96))}
        rewrite(path, lambda pixels: np.where(valid, pixels, 65535), **marked)
    read = masks(predictor, tmp_path / "set", tmp_path / "out")
    same(read, zeros)
    assert all(((mask == 255) == ~valid).all() for mask in read.values())


def test_the_command_says_what_it_converted_and_takes_the_offset(predictor, tmp_path):
    plain = masks(predictor, tmp_path / "set", tmp_path / "plain")
    shifted(tmp_path / "set")
    for path in (tmp_path / "set").rglob("c000/B*.tif"):
        rewrite(path, **TAGS)
    command = [sys.executable, "-m", "cloudcover", "predict", "set", "--model", "model", "--out", "out"]
    done = subprocess.run([*command, "--offset", "1000"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "converted 1 chip (c000) to DN by scale=0.0001,offset=-0.1\n" in done.stderr
    assert "converted 1 chip (c001) to DN by data.offset=1000\n" in done.stderr
    for chip, expected in plain.items():
        with rasterio.open(tmp_path / "out" / f"{chip}.tif") as mask:
            np.testing.assert_array_equal(mask.read(1), expected)


@pytest.mark.parametrize("name", ["pb04", "nd65535"])
def test_inputs_that_failed_are_read_as_meant(name):
    folder = SHARED / "failing-inputs" / name / "c0"
    if not folder.exists():
        pytest.skip(f"the inputs that failed are not at {folder}")
    chip = read_chip(folder, None, BANDS, (96, 96))
    for band, pixels in zip(BANDS, chip.bands, strict=True):
        with rasterio.open(folder / f"{band}.tif") as source:
            stored = source.read(1).astype(int)
        np.testing.assert_array_equal(pixels, stored - 1000 if name == "pb04" else np.where(stored < 65535, stored, 0))
    if name == "nd65535":
        assert (chip.bands == 0).any(axis=0).mean() == pytest.approx(30 / 96)


# --- pack -----------------------------------------------------------------------------------------------------------


def packed(raw, store, **changes):
    write_file_table(raw, "test")
    values = {"chip_size": 64, "chips_per_shard": 8, "max_quarantined": 0.5} | changes
    pack(raw, store, store.parent / "quarantine.csv", DataParams.model_validate(values))
    return ChipStore(store), pd.read_csv(store.parent / "quarantine.csv")


def pixels_of(store):
    return store.chips(store.index["chip_id"].tolist())


def test_an_offset_is_suspected_of_whole_products_and_not_of_overcast_chips(tmp_path, caplog):
    root = tmp_path / "raw"
    values = SyntheticParams.model_validate({"chips": 36, "scenes": 3, "locations": 3})
    generate(values, DataParams.model_validate({"chip_size": 64}), 0, root, tmp_path / "truth")
    plain = packed(root, tmp_path / "plain")[0].index
    overcast = plain[plain["flags"].str.contains("suspected-offset")]
    assert overcast["scene"].nunique() == 2, "the set could not tell"
    assert "begin near 1000" not in caplog.text

    later = plain.loc[plain["scene"] == overcast["scene"].mode()[0], "chip_id"]
    for chip in later:  # one of the products is of a later baseline
        for path in root.glob(f"*_features/{chip}/*.tif"):
            with rasterio.open(path, "r+") as image:
                image.write(image.read() + 1000)
    mixed = packed(root, tmp_path / "mixed")[0].index
    suspects = set(mixed.loc[mixed["flags"].str.contains("suspected-offset"), "chip_id"])
    assert f"all bands of {len(suspects & set(later))} chips (" in caplog.text
    assert suspects - set(later)
    assert not any(chip in caplog.text for chip in suspects - set(later))


def test_chips_of_unknown_time_are_judged_by_their_share(tmp_path, caplog):
    root = tmp_path / "raw"
    make_layout(root, chips=12)
    darkened(root)
    for table in root.glob("*_metadata.csv"):
        pd.read_csv(table).assign(location="one", datetime="").to_csv(table, index=False)
    shifted(root / "train_features/c000")
    packed(root, tmp_path / "one")
    assert "begin near 1000" not in caplog.text
    shifted(root / "train_features/c001")
    packed(root, tmp_path / "two")
    assert "all bands of 2 chips (c000, c001) begin near 1000 DN" in caplog.text


def test_the_store_holds_reflectance_whatever_the_files_add_and_mark(layout, tmp_path, caplog):
    raw = layout(chips=6)
    first = sorted(raw.rglob("c000/B*.tif"))
    for path in first:
        rewrite(path, lambda pixels: np.where(np.arange(64) < 8, 0, pixels))
    plain, _ = packed(raw, tmp_path / "plain" / "store")
    expected = pixels_of(plain)
    shifted(raw, **TAGS)
    for path in first:
        rewrite(path, lambda pixels: np.where(np.arange(64) < 8, 65535, pixels), nodata=65535, **TAGS)
    with caplog.at_level(logging.INFO, "cloudcover"):
        tagged, _ = packed(raw, tmp_path / "tagged" / "store")
    np.testing.assert_array_equal(pixels_of(tagged), expected)
    assert "converted 6 chips (c000, " in caplog.text
    assert tagged.index.loc["c000", "flags"] == "nodata converted:scale=0.0001,offset=-0.1"


def test_another_offset_packs_anew_and_the_suspicion_is_repeated_until_then(layout, tmp_path, caplog):
    raw = layout(chips=6)
    darkened(raw)
    plain, _ = packed(raw, tmp_path / "plain" / "store")
    expected = np.array(pixels_of(plain))
    shifted(raw)
    for _ in range(2):  # the second time the shards are kept
        caplog.clear()
        packed(raw, tmp_path / "lost" / "store")
        assert "all bands of 6 chips (c000, " in caplog.text
        assert "data.offset: 1000" in caplog.text
    caplog.clear()
    mended, _ = packed(raw, tmp_path / "lost" / "store", offset=1000)
    np.testing.assert_array_equal(pixels_of(mended), expected)
    assert not warnings_in(caplog)


def test_a_label_with_a_nodata_tag_is_quarantined_with_the_remedy(layout, tmp_path):
    raw = layout(chips=6)
    rewrite(raw / "train_labels" / "c001.tif", nodata=0)
    _, quarantine = packed(raw, tmp_path / "a" / "store")
    assert quarantine["chip_id"].tolist() == ["c001"]
    assert "declares nodata 0, expected 255" in quarantine["reason"][0]


def test_a_negative_offset_is_refused():
    with pytest.raises(ParamsError, match=r"data\.offset"):
        validate({"data": {"offset": -1000}})


# --- the local source -----------------------------------------------------------------------------------------------


def bring(source, target, **changes):
    data = DataParams.model_validate({"source": "local", "path": str(source), "chip_size": 64} | changes)
    fetch(data, SyntheticParams.model_validate({}), 0, target / "raw", target / "truth")
    return target / "raw"


def test_tiles_keep_scale_offset_nodata_and_mask(tmp_path):
    make_layout(tmp_path / "source", chips=2, size=96, unlabelled=0)
    shifted(tmp_path / "source", nodata=65535, **TAGS)
    valid = np.ones((96, 96), bool)
    valid[:40] = False
    label = rewrite(tmp_path / "source" / "train_labels" / "c000.tif", mask=valid)
    raw = bring(tmp_path / "source", tmp_path / "out", tile=True)
    with rasterio.open(raw / "train_features" / "c001_32_0" / "B03.tif") as tile:
        assert (tile.scales, tile.offsets, tile.nodata) == ((0.0001,), (-0.1,), 65535)
    with rasterio.open(raw / "train_labels" / "c000_32_0.tif") as tile:
        assert tile.mask_flag_enums == ([MaskFlags.per_dataset],)
    assert not list(raw.rglob("*.msk"))
    expected = read_mask(label, "label")[0][32:, :64]
    np.testing.assert_array_equal(read_mask(raw / "train_labels" / "c000_32_0.tif", "label")[0], expected)


def test_tiles_of_plain_images_get_no_tags(tmp_path):
    make_layout(tmp_path / "source", chips=1, size=96, unlabelled=0)
    raw = bring(tmp_path / "source", tmp_path / "out", tile=True)
    content = (raw / "train_features" / "c000_0_0" / "B02.tif").read_bytes()
    assert b"GDALMetadata" not in content
    assert b"OFFSET" not in content


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("B03.tfw", "10\n0\n0\n-10\n500005\n4999995\n", "the place"),
        ("B03.WLD", "10\n0\n0\n-10\n500005\n4999995\n", "the place"),
        ("B03.tif.aux.xml", "<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>", "the place"),
        (
            "B03.tif.aux.xml",
            "<PAMDataset><Metadata><MDI key='NODATA_VALUES'>7</MDI></Metadata></PAMDataset>",
            "NODATA_VALUES",
        ),
    ],
)
def test_a_place_or_nodata_value_beside_an_image_that_lacks_it_is_refused(tmp_path, name, content, what):
    make_layout(tmp_path / "source", chips=2, unlabelled=0)
    path = tmp_path / "source/train_features/c000/B03.tif"
    path.with_name(name).write_text(content)
    if what == "the place":
        bring(tmp_path / "source", tmp_path / "fine")  # the image has its own place, and it is the same
        with rasterio.open(path) as source:
            pixels = source.read()
        with rasterio.open(path, "w", driver="GTiff", count=1, height=64, width=64, dtype="uint16") as output:
            output.write(pixels)
        path.with_name(name).write_text(content)
    with pytest.raises(LayoutError, match=rf"{name} holds {what} of B03\.tif, but only the TIFF is used"):
        bring(tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize("beside", ["mask", "nodata"])
def test_a_file_beside_an_image_that_would_stay_behind_is_refused(tmp_path, beside):
    make_layout(tmp_path / "source", chips=2, unlabelled=0)
    path = tmp_path / "source" / "train_features" / "c000" / "B03.tif"
    aux = path.with_name("B03.tif.aux.xml")
    if beside == "mask":
        rewrite(path, mask=np.eye(64, dtype=bool), internal=False)
    else:
        band = '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
        aux.write_text(band.format("<Metadata><MDI key='STATISTICS_MEAN'>7</MDI></Metadata>"))
        bring(tmp_path / "source", tmp_path / "fine")
        aux.write_text(band.format("<NoDataValue>65535</NoDataValue>"))
    message = rf"B03\.tif\.{'msk holds a mask' if beside == 'mask' else 'aux.xml holds NoDataValue'} of B03.tif"
    with pytest.raises(LayoutError, match=message):
        bring(tmp_path / "source", tmp_path / "out")
    shutil.move(tmp_path / "source" / "train_features", tmp_path / "more")
    make_layout(tmp_path / "source", chips=2, unlabelled=0, seed=1)
    for chip in (tmp_path / "more").iterdir():
        chip.rename(chip.with_name(f"more-{chip.name}"))
    with pytest.raises(LayoutError, match=message):
        bring(tmp_path / "source", tmp_path / "other", unlabelled=str(tmp_path / "more"))
