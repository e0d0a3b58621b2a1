"""Arrays and their attributes become DN, and what is no image is named."""

from __future__ import annotations

import logging

import dask.array
import numpy as np
import pytest
import xarray

from cloudcover.rasters.arrays import ArrayImage, dn_of
from helpers.images import shifted
from helpers.layouts import BANDS
from helpers.products import SIZE, stored

STACK = np.stack([stored(i) for i in range(4)])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_arrays_of_dn_or_reflectance_become_dn(dtype):
    values = (STACK / (10_000 if np.dtype(dtype).kind == "f" else 1)).astype(dtype)
    dn = dn_of(values)
    assert dn.dtype == np.uint16
    np.testing.assert_array_equal(dn, STACK)
    np.testing.assert_array_equal(dn_of(values, offset=1000), shifted(STACK, -1000))


def test_what_is_not_finite_has_no_data_and_a_scale_counts():
    values = (STACK / 10_000).astype(np.float32)
    values[1, 20], values[2, 21], values[3, 22] = np.nan, np.inf, -np.inf
    dn = dn_of(values)
    assert (dn[1, 20] == dn[2, 21]).all()
    assert (dn[1, 20] == 0).all()
    assert (dn[3, 22] == 0).all()
    np.testing.assert_array_equal(
        dn_of(STACK, scale=0.00005)[0], np.where(STACK[0] == 0, 0, np.rint(STACK[0] / 2).clip(1))
    )


def test_masked_arrays_have_no_data_where_they_say_so():
    masked = np.ma.masked_less(STACK, 500)
    np.testing.assert_array_equal(dn_of(masked), np.where(STACK < 500, 0, STACK))
    np.testing.assert_array_equal(dn_of(masked[np.newaxis] / 10_000)[0], np.where(STACK < 500, 0, STACK))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["x"]), "is <U1, expected DN as integers"),
        (np.ones((4, 4, 4), bool), "is bool, expected DN as integers of two bytes"),
        (np.ones((4, 4, 4), np.uint8), "is uint8, expected DN as integers of two bytes or more, or reflectance"),
        (np.full((4, 4, 4), 70_000), "holds values from 70000 to 70000"),
        (np.full((4, 4, 4), 3000.0), r"largest value 3000\.0 would be 30000000 DN"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        dn_of(array)


def test_a_chunked_array_is_computed_block_by_block(caplog):
    caplog.set_level(logging.INFO)
    blocks = []

    def block(block_info=None):
        blocks.append(block_info[None]["chunk-location"])
        return STACK[:, :16, :16]

    lazy = dask.array.map_blocks(
        block, dtype=np.uint16, chunks=((4,), (16,) * 3, (16,) * 3), meta=np.empty((0,) * 3, np.uint16)
    )
    image = ArrayImage(xarray.DataArray(lazy, dims=("band", "y", "x")))
    assert (image.grid.height, image.grid.width, image.doubtful) == (SIZE, SIZE, True)
    np.testing.assert_array_equal(image.read(slice(16, 30), slice(2, 14)), STACK[:, :14, 2:14])
    assert blocks == [(0, 1, 0)]


def test_an_image_has_three_axes():
    for shape in ((4, 4), (4, 0, 4)):
        with pytest.raises(ValueError, match=rf"has the shape \({shape[0]}, .*, expected bands x height x width"):
            ArrayImage(np.ones(shape, np.uint16))
    np.testing.assert_array_equal(ArrayImage(STACK.tolist()).read(slice(0, SIZE), slice(0, SIZE)), STACK)


WHOLE = (slice(0, SIZE), slice(0, SIZE))


def test_attributes_of_an_xarray_array_count():
    """As files have them that are opened without decoding."""
    attributes = {"scale_factor": 0.0001, "add_offset": -0.1, "_FillValue": 0}
    image = ArrayImage(xarray.DataArray(STACK, dims=("band", "y", "x"), attrs=attributes), offset=500)
    np.testing.assert_array_equal(image.read(*WHOLE), shifted(STACK, -1000))
    assert (image.conversion, image.doubtful) == ("scale=0.0001,offset=-0.1", False)
    signed = np.where(STACK == 0, -999, STACK).astype(np.int16)
    image = ArrayImage(xarray.DataArray(signed, dims=("band", "y", "x"), attrs={"nodata": -999, "scale_factor": 1.0}))
    np.testing.assert_array_equal(image.read(*WHOLE), STACK)
    with pytest.raises(ValueError, match="attribute add_offset is 'x', expected a number"):
        ArrayImage(xarray.DataArray(STACK, dims=("band", "y", "x"), attrs={"add_offset": "x"}))


@pytest.mark.parametrize("chunks", [None, 10])
def test_bands_of_an_xarray_array_are_taken_by_their_names(chunks):
    order = ["red", "B05", "green", "B2", "nir"]
    values = xarray.DataArray(
        np.stack([STACK[2], STACK[0] + 1, STACK[1], STACK[0], STACK[3]]),
        dims=("band", "y", "x"),
        coords={"band": order},
    )
    values = values.chunk({"x": chunks}) if chunks else values
    np.testing.assert_array_equal(ArrayImage(values, bands=BANDS).read(*WHOLE), STACK)
    with pytest.raises(ValueError, match="has the bands red, B05, green, B2, expected B08 once"):
        ArrayImage(values[:4], bands=BANDS)
    numbered = xarray.DataArray(STACK, dims=("band", "y", "x"), coords={"band": [1, 2, 3, 4]})
    np.testing.assert_array_equal(ArrayImage(numbered, bands=BANDS).read(*WHOLE), STACK)


def test_the_descriptions_that_rioxarray_keeps_select_the_bands():
    """It numbers the bands, and writes their descriptions to `long_name`."""
    values = xarray.DataArray(
        STACK[::-1], dims=("band", "y", "x"), coords={"band": [1, 2, 3, 4]}, attrs={"long_name": tuple(BANDS[::-1])}
    )
    np.testing.assert_array_equal(ArrayImage(values, bands=BANDS).read(*WHOLE), STACK)
    one = xarray.DataArray(STACK, dims=("band", "y", "x"), attrs={"long_name": "reflectance"})
    np.testing.assert_array_equal(ArrayImage(one, bands=BANDS).read(*WHOLE), STACK)


def test_landsats_near_infrared_band_is_selected_by_its_only_name():
    values = xarray.DataArray(
        STACK[[3, 0, 1, 2]], dims=("band", "y", "x"), coords={"band": ["nir08", "blue", "green", "red"]}
    )
    np.testing.assert_array_equal(ArrayImage(values, bands=BANDS).read(*WHOLE), STACK)


def test_dn_stored_as_floating_point_numbers_are_read_by_their_scale():
    with pytest.raises(ValueError, match=r"taken as reflectance; if these are DN, give the scale 0\.0001"):
        dn_of(STACK.astype(np.float32))
    np.testing.assert_array_equal(dn_of(STACK.astype(np.float32), scale=0.0001), STACK)
    np.testing.assert_array_equal(dn_of(STACK.astype(np.float32), 0.0001, 1000), shifted(STACK, -1000))


def test_lists_of_masked_bands_keep_their_masks():
    masked = [np.ma.masked_less(band, 500) for band in STACK]
    np.testing.assert_array_equal(ArrayImage(masked).read(*WHOLE), np.where(STACK < 500, 0, STACK))


def test_xarrays_bands_may_come_last(tmp_path):
    values = xarray.DataArray(STACK.transpose(1, 2, 0), dims=("y", "x", "band"))
    for image in (ArrayImage(values), ArrayImage(values.chunk({"x": 10}))):
        np.testing.assert_array_equal(image.read(slice(0, SIZE), slice(5, 25)), STACK[:, :, 5:25])
