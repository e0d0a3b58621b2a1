"""What rasters say of their pixels counts in the store, and stays with tiles of the local source."""

import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.enums import MaskFlags

from cloudcover.config.params import ParamsError, validate
from cloudcover.config.sections import DataParams, SyntheticParams
from cloudcover.data.chips import read_mask
from cloudcover.data.layout import LayoutError, write_file_table
from cloudcover.data.pack import pack
from cloudcover.data.store import ChipStore
from cloudcover.synthetic.generate import generate
from helpers.layouts import make_layout
from helpers.values import TAGS, bring, darkened, rewrite, shifted, warnings_in

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
