"""Images of any size: windows that leave no seams, borders, gaps, grids, and pixels of another size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cloudcover.data.chips import ChipError
from cloudcover.data.grid import Grid
from cloudcover.masks.decision import InferenceSettings
from cloudcover.masks.postprocess import Postprocess
from cloudcover.predict.files import chip_percentiles
from cloudcover.predict.images import UnusableImagesError, predict_images
from cloudcover.predict.metres import GridError, pixel_metres
from cloudcover.predict.outputs import Outputs
from cloudcover.predict.predictor import NotFiniteError
from cloudcover.predict.resolution import resample, scale_of
from cloudcover.predict.scenes import WINDOW, predict_scene
from cloudcover.predict.windows import least_side, mirrored, spans
from cloudcover.rasters.find import Found, find_images
from cloudcover.rasters.layers import Request
from helpers.layouts import BANDS
from helpers.networks import Blurred, Brightness
from helpers.scenes import NORTH_UP, InMemory, Memory, scene, write_chip, write_raster


def probabilities(predictor, dn):
    return predictor.probabilities(dn[np.newaxis], chip_percentiles(dn[np.newaxis], 0))[0]


# --- windows --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(8, 96), st.data())
def test_windows_cover_an_axis_and_their_weights_sum_to_one(length, side, data):
    overlap = data.draw(st.integers(2, side - 1))
    total = np.zeros(length)
    for span in spans(length, side, overlap):
        assert len(span.source) == side
        assert (span.source[span.inner] == np.arange(length)[span.target]).all()
        assert (span.weights >= 0).all()
        total[span.target] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(st.integers(1, 300), st.integers(8, 64))
def test_every_pixel_has_half_an_overlap_around_it_in_the_windows_that_count(length, side):
    overlap = side // 4
    reach = np.zeros(length)
    for span in spans(length, side, overlap):
        inside = np.arange(side)[span.inner]
        edge = np.minimum(inside + 1, side - inside) * (span.weights > 0)
        reach[span.target] = np.maximum(reach[span.target], edge)
    assert reach.min() >= overlap // 2


@given(st.integers(1, 5000), st.sampled_from([64, 512, 1024]))
def test_the_smallest_windows_are_no_more_than_the_largest(length, most):
    overlap = most // 8
    side = least_side(length, most, overlap, 32)
    assert side <= most
    assert side % 32 == 0
    assert len(spans(length, side, overlap)) == len(spans(length, most, overlap))
    smaller = side - 32
    assert (
        smaller <= overlap or len(spans(length, smaller, overlap)) > len(spans(length, most, overlap)) or smaller == 0
    )


def test_beyond_its_border_an_image_is_mirrored():
    assert mirrored(np.arange(-3, 7), 3).tolist() == [2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert mirrored(np.arange(-2, 3), 1).tolist() == [0] * 5


# --- what a scene looks like ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(200, 330), (65, 64), (30, 500), (1, 200)])
def test_windows_give_what_one_window_with_a_mirrored_border_gives(model, size):
    predictor, dn = model(Blurred()), scene(*size)
    found = predict_scene(Memory(dn), predictor, window=64, overlap=32)
    border = 32
    padded = np.pad(dn, ((0, 0), (border, border), (border, border)), "symmetric")
    whole = probabilities(predictor, padded)[border : border + size[0], border : border + size[1]]
    np.testing.assert_allclose(found.values, whole, atol=1e-5)
    assert not found.empty.any()


def test_a_border_is_as_good_as_the_inside(model):
    predictor, dn = model(Blurred()), np.full((4, 256, 256), 4000, np.uint16)
    found = predict_scene(Memory(dn), predictor, window=64, overlap=32).values
    assert np.ptp(found) < 1e-5
    assert np.ptp(probabilities(predictor, dn)) > 0.2  # which is what zeros beyond the border do


def test_the_change_from_window_to_window_is_smooth(model):
    """A network that takes every window for as cloudy as its mean has no seams, where cut windows would have steps."""

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(4.0))

        def forward(self, inputs):
            return self.gain * inputs[:, :1].mean(dim=(2, 3), keepdim=True).expand(-1, 1, *inputs.shape[2:])

    dn = np.repeat(np.linspace(500, 9000, 512)[np.newaxis, np.newaxis], 4, 0).repeat(512, 1).astype(np.uint16)
    found = predict_scene(Memory(dn), model(Mean()), window=128, overlap=64).values
    steps = np.abs(np.diff(found, axis=1)).max()
    assert np.ptp(found) > 0.5
    assert steps < np.ptp(found) / 64 * 1.6  # cut windows of 64 pixels: an eighth of the range


@pytest.mark.parametrize("postprocess", [{}, {"median_pixels": 3, "min_area_pixels": 40, "hole_pixels": 20}])
def test_an_image_that_fits_into_a_window_has_exactly_the_mask_of_a_chip(model, tmp_path, monkeypatch, postprocess):
    weights = {"model": 1.0}
    chosen = InferenceSettings(
        weights=weights, temperature=1.7, threshold=0.4, postprocess=Postprocess.model_validate(postprocess)
    )
    predictor, dn = model(Blurred(), "flips", chosen), scene(96, 160)
    dn[:, :10, :20] = 0
    alone = predictor.masks(dn[np.newaxis], np.zeros((1, 4, 2), np.float32))[0]
    (path,) = predict_images(predictor, [InMemory.of(dn)], Outputs(tmp_path / "out"))
    with rasterio.open(path) as mask:
        np.testing.assert_array_equal(mask.read(1), alone)
    assert set(np.unique(alone)) == {0, 1, 255}


def test_pixels_without_data_and_windows_without_any_stay_unknown(model):
    network = Brightness(0.0)
    predictor, dn = model(network), scene(300, 300)
    rows, columns = np.mgrid[:300, :300]
    gap = rows > columns + 40  # the edge of an orbit
    dn[:, gap] = 0
    dn[2, 5, 5] = 0  # one band is enough
    calls = []
    network.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    found = predict_scene(Memory(dn), predictor, window=64, overlap=16)
    gap[5, 5] = True
    np.testing.assert_array_equal(found.empty, gap)
    whole = probabilities(predictor, dn)
    np.testing.assert_allclose(found.values[~gap], whole[~gap], atol=1e-5)
    windows = len(spans(300, 64, 16)) ** 2
    assert 0 < sum(calls[:-1]) < 0.8 * windows


def test_an_image_without_any_data_is_unknown_everywhere(model, tmp_path):
    (path,) = predict_images(model(Blurred()), [InMemory.of(np.zeros((4, 80, 70), np.uint16))], Outputs(tmp_path))
    with rasterio.open(path) as mask:
        assert (mask.read(1) == 255).all()


def test_rows_are_read_strip_by_strip_and_seen_once(model):
    image, seen = Memory(scene(500, 90)), []
    predict_scene(image, model(Blurred()), seen=lambda row, dn: seen.append((row, dn)), window=64, overlap=16)
    assert all(rows.stop - rows.start <= 64 for rows in image.reads)
    assert [row for row, _ in seen] == [0, *np.cumsum([dn.shape[1] for _, dn in seen])[:-1]]
    np.testing.assert_array_equal(np.concatenate([dn for _, dn in seen], axis=1), image.dn)


def test_percentiles_are_those_of_each_window(model):
    predictor, dn = model(Brightness(0.5), input={"scale": "percentile"}), scene(128, 128)
    dn[:, :, 70:] *= 5
    found = predict_scene(Memory(dn), predictor, window=64, overlap=2).values
    first = np.pad(dn, ((0, 0), (1, 1), (1, 1)), "symmetric")[:, :64, :64]
    np.testing.assert_allclose(found[:30, :30], probabilities(predictor, first)[1:31, 1:31], atol=1e-5)
    assert np.abs(found - probabilities(predictor, dn)).max() > 0.2


def test_policies_that_turn_windows_take_images_of_any_shape(model):
    found = predict_scene(Memory(scene(40, 300)), model(Blurred(), "d4"), window=64, overlap=16)
    assert found.values.shape == (40, 300)


# --- grids ----------------------------------------------------------------------------------------------------------

TURNED = tuple(Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10))[:6]
GRIDS = {"north": NORTH_UP, "south": (10.0, 0.0, 500_000.0, 0.0, 10.0, 4_000_000.0), "turned": TURNED}


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize("side", [96, 700])
def test_masks_keep_the_grid_of_the_image(model, tmp_path, name, side):
    dn = scene(side, side)
    (path,) = predict_images(model(Blurred()), [InMemory.of(dn, transform=GRIDS[name])], Outputs(tmp_path))
    with rasterio.open(path) as mask:
        assert mask.transform.almost_equals(Affine(*GRIDS[name]), 1e-6)
        assert mask.crs == "EPSG:32633"
        assert mask.shape == (side, side)


def test_a_chip_folder_may_hold_a_scene(model, tmp_path):
    """Small chips go through in batches, a large one in windows, and each has the mask of its own pixels."""
    small, large = scene(64, 64, seed=1), scene(WINDOW + 76, 96)
    write_chip(tmp_path / "set/small", small)
    write_chip(tmp_path / "set/large", large)
    predictor = model(Blurred())
    written = predict_images(predictor, find_images([tmp_path / "set"], BANDS), Outputs(tmp_path / "out"))
    assert [path.name for path in written] == ["large.tif", "small.tif"]
    for path, dn in zip(written, (large, small), strict=True):
        with rasterio.open(path) as mask:
            expected = predict_scene(Memory(dn), predictor).values > 0.5
            np.testing.assert_array_equal(mask.read(1), expected)


# --- pixels of another size -----------------------------------------------------------------------------------------


def test_images_of_other_pixels_are_seen_at_the_models_and_masked_on_their_own(model, tmp_path, caplog):
    """A network that looks 80 m far sees as far in an image of 20 m pixels only if that is resampled."""
    fine = scene(256, 256)
    coarse = fine.reshape(4, 128, 2, 128, 2).mean(axis=(2, 4)).astype(np.uint16)
    predictor, transform = model(Blurred()), (20.0, 0.0, 500_000.0, 0.0, -20.0, 5_000_000.0)
    exact = predict_scene(Memory(fine), predictor).values.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    errors = {}
    for resolution in (None, "auto", 10.0):
        out = tmp_path / str(resolution)
        with caplog.at_level("INFO"):
            (path,) = predict_images(
                predictor,
                [InMemory.of(coarse, transform=transform)],
                Outputs(out, probabilities=True),
                resolution=resolution,
            )
        with rasterio.open(out / "probabilities/scene.tif") as found:
            errors[resolution] = np.abs(found.read(1) / 254 - exact).mean()
            assert found.tags().get("CLOUDCOVER_RESOLUTION_M") == (None if resolution is None else "10")
        with rasterio.open(path) as mask:
            assert mask.transform == Affine(*transform)
    assert errors["auto"] == errors[10.0] < 0.25 * errors[None]
    assert "scene: pixels of 20 m are resampled to 10 m for the model" in caplog.text


def test_windows_of_resampled_images_leave_no_seams(model):
    predictor, dn = model(Blurred()), scene(150, 210)
    whole = predict_scene(Memory(dn), predictor, scale=2, window=1024).values
    parts = predict_scene(Memory(dn), predictor, scale=2, window=128, overlap=64).values
    assert np.abs(parts - whole)[16:-16, 16:-16].max() < 0.01


def test_windows_of_small_pixels_are_bounded(model):
    """At 20 cm a window of the network would be 51,200 pixels wide."""
    image = Memory(np.full((4, 5000, 40), 4000, np.uint16))
    found = predict_scene(image, model(Blurred()), scale=0.02)
    assert max(rows.stop - rows.start for rows in image.reads) <= 4096
    assert np.ptp(found.values) < 0.02


def test_resampling_gives_pixels_without_data_no_weight():
    dn = np.full((1, 2, 8, 8), 1000, np.uint16)
    dn[:, :, :, 4:] = 0
    for size in ((16, 16), (4, 4), (3, 5)):
        found = resample(dn, size, 0)
        assert set(np.unique(found)) == {0, 1000}
        assert abs((found == 0).mean() - 0.5) < 0.15


def test_pixels_of_nearly_the_same_size_are_left_alone():
    grid = Grid(10, 10, "EPSG:32633", (10.05, 0, 0, 0, -10, 0))
    assert scale_of(grid, "auto") == 1
    assert scale_of(grid, None) == 1
    assert scale_of(Grid(10, 10, "EPSG:32633", (30.0, 0, 0, 0, -30, 0)), "auto") == pytest.approx(3)
    assert scale_of(Grid(10, 10, "EPSG:32633", TURNED), "auto") == 1


@pytest.mark.parametrize("resolution", [0.3, 1e-4, 1e-300])
def test_pixels_are_not_divided_more_finely_than_a_window_allows(resolution):
    grid = Grid(10, 10, "EPSG:32633", (10, 0, 0, 0, -10, 0))
    with pytest.raises(GridError, match=r"has pixels of 10 m, .* --resolution must be at least 0\.3125"):
        scale_of(grid, resolution)
    assert scale_of(grid, 0.3125) == 32


@pytest.mark.parametrize(("crs", "reason"), [("", "has no CRS"), ("EPSG:4326", "EPSG:4326, which is not in metres")])
def test_pixels_without_a_size_in_metres_are_refused(crs, reason):
    with pytest.raises(GridError, match=reason):
        pixel_metres(Grid(10, 10, crs, (0.001, 0, 0, 0, -0.001, 0)))


def test_feet_are_converted():
    height, width = pixel_metres(Grid(10, 10, "EPSG:2263", (10.0, 0, 0, 0, -20.0, 0)))
    assert (height, width) == pytest.approx((6.096, 3.048), rel=1e-4)


# --- images that cannot be used -------------------------------------------------------------------------------------


class Torn(Memory):
    """An image whose lower part cannot be read."""

    def read(self, rows, columns):
        if rows.stop > 1100:
            raise ChipError("B03", "scene_B03.tif cannot be read: truncated or not a GeoTIFF")
        return super().read(rows, columns)


def test_an_image_that_is_bad_from_the_middle_on_is_named_and_the_others_are_done(model, tmp_path):
    images = [
        InMemory.of(scene(64, 64), name="a"),
        InMemory(Torn(scene(1400, 64), name="b")),
        InMemory.of(scene(64, 64), name="c", crs=""),
        InMemory.of(scene(64, 64), name="d"),
    ]
    outputs = Outputs(tmp_path / "out", min_area_m2=500)
    with pytest.raises(UnusableImagesError) as caught:
        predict_images(model(Blurred()), images, outputs)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("2 of 4 images have no mask")
    assert lines[1] == "  b: B03: scene_B03.tif cannot be read: truncated or not a GeoTIFF"
    assert lines[2].startswith("  c: has no CRS")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".cloudcover", "a.tif", "d.tif"]


def test_a_model_without_numbers_ends_the_run_and_names_the_image(model, tmp_path):
    predictor = model(Brightness(math.nan))
    with pytest.raises(NotFiniteError, match=r"image scene: the model .* predicts probabilities that are not finite"):
        predict_images(predictor, [InMemory.of(scene(64, 64))], Outputs(tmp_path))


def test_a_mask_does_not_overwrite_the_image_that_it_is_of(model, tmp_path):
    write_raster(tmp_path / "scene.tif", scene(64, 64))
    before = (tmp_path / "scene.tif").read_bytes()
    found = Found("scene", "raster", str(tmp_path / "scene.tif"), "", Request(tuple(BANDS), (1, 2, 3, 4)))
    with pytest.raises(ValueError, match=r"scene\.tif was not made by cloudcover and would be overwritten"):
        predict_images(model(Blurred()), [found], Outputs(tmp_path))
    (tmp_path / ".cloudcover").write_text("scene.tif\n")  # a mask was there before
    with pytest.raises(ValueError, match=r"scene\.tif lacks the tags of the mask"):
        predict_images(model(Blurred()), [found], Outputs(tmp_path))
    with rasterio.open(tmp_path / "scene.tif", "r+") as image:
        image.update_tags(TIFFTAG_SOFTWARE="cloudcover 1")
    before = (tmp_path / "scene.tif").read_bytes()
    with pytest.raises(UnusableImagesError, match=r"scene\.tif, which the image is read from: choose another --out"):
        predict_images(model(Blurred()), [found], Outputs(tmp_path))
    assert (tmp_path / "scene.tif").read_bytes() == before


def test_an_offset_that_seems_to_be_lost_is_said(model, tmp_path, caplog):
    dn = (scene(WINDOW + 10, 64).astype(int) + 1000).clip(1000, 65535).astype(np.uint16)
    predict_images(model(Blurred()), [InMemory.of(dn), InMemory.of(scene(64, 64), name="other")], Outputs(tmp_path))
    assert "all bands of 1 chip (scene) begin near 1000 DN" in caplog.text
