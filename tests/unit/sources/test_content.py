"""The check of what a server sent: an image or a table of its kind, and whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.sources.remote import content
from cloudcover.sources.remote.errors import DownloadError
from helpers.layouts import write_tif

BAND, LABEL = "train_features/c000/B02.tif", "train_labels/c000.tif"


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    options=st.sampled_from([{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16},
                             {"BIGTIFF": "YES"}, {"compress": "lzw", "predictor": 2}]),
)  # fmt: skip
def test_the_tiff_check_reads_what_gdal_writes(tmp_path_factory, height, width, dtype, options):
    import rasterio
    from rasterio.io import MemoryFile

    if dtype == "float32" and "predictor" in options:
        options = {}
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": dtype}
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning), memory.open(**profile, **options) as image:
            image.write(np.ones((1, height, width), dtype))
        data = bytes(memory.getbuffer())
    path = tmp_path_factory.mktemp("tiff") / "x.tif"
    path.write_bytes(data)
    if dtype in ("uint8", "uint16"):
        assert content.check(path, LABEL if dtype == "uint8" else BAND, len(data)) == len(data)
    else:
        with pytest.raises(DownloadError, match=f"of {dtype}, expected one of uint16"):
            content.check(path, BAND)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DownloadError, match=r"cut off|cannot be read"):
        content.check(path, LABEL if dtype == "uint8" else BAND)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html><title>403</title>", "an HTML, XML or JSON page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error/>', "an HTML, XML or JSON page"),
        (b"", "empty"),
        (b"II*\0\xff\xff\0\0", "cannot be read"),
        (b"PK\x03\x04" + bytes(100), "cannot be read"),
    ],
)
def test_what_is_no_tiff_is_refused(tmp_path, data, message):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(DownloadError, match=f"B02.*{message}"):
        content.check(tmp_path / "x.tif", BAND)


@pytest.mark.parametrize("start", ["  <html>", '{"error": 1}', ""])
def test_a_page_is_no_table_and_a_table_of_another_length_is_refused(tmp_path, start):
    (tmp_path / "x.csv").write_text(f"{start}chip_id,location\n" if start else "")
    with pytest.raises(DownloadError, match=r"train_metadata\.csv is not the expected file"):
        content.check(tmp_path / "x.csv", "train_metadata.csv")
    (tmp_path / "x.csv").write_text("chip_id,location\n")
    assert content.check(tmp_path / "x.csv", "train_metadata.csv") == 17
    with pytest.raises(DownloadError, match=r"17 bytes.* 18"):
        content.check(tmp_path / "x.csv", "train_metadata.csv", 18)


def test_another_type_or_more_bands_are_refused(tmp_path):
    import rasterio

    write_tif(tmp_path / "label.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(DownloadError, match="1 bands of uint8, expected one of uint16"):
        content.check(tmp_path / "label.tif", BAND)
    with rasterio.open(tmp_path / "rgb.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint16",
                       crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5, 0, -10, 5)) as image:  # fmt: skip
        image.write(np.ones((3, 8, 8), np.uint16))
    with pytest.raises(DownloadError, match="3 bands"):
        content.check(tmp_path / "rgb.tif", BAND)
