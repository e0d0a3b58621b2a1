"""Both input scales are what their formulas say, and finite whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.augment.tta import POLICIES, View
from cloudcover.config.sections import DataParams, InputParams
from cloudcover.models.normalize import Normalize

DATA = DataParams()
DTYPES = [torch.uint16, torch.int32, torch.float32]


def chips(seed: int = 0, n: int = 3, low: int = 1, high: int = 20_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (n, 4, 5, 6), dtype=np.uint16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reuse", [False, True])
def test_reflectance_is_standardised_by_band(dtype, reuse):
    params = InputParams()
    dn = chips()
    mean, std = (np.array(v)[:, None, None] for v in (params.mean, params.std))
    scaled = Normalize(params, DATA, reuse=reuse)(torch.from_numpy(dn.astype(np.int32)).to(dtype))
    assert scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled.numpy(), (dn / 10_000 - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_percentile_stretches_each_chip_and_band_and_clips(dtype):
    dn = chips()
    percentiles = np.percentile(dn.reshape(3, 4, -1), [2, 98], axis=-1).transpose(1, 2, 0).astype(np.float32)
    low, high = percentiles[..., 0, None, None], percentiles[..., 1, None, None]
    scaled = Normalize(InputParams(scale="percentile"), DATA)(
        torch.from_numpy(dn.astype(np.int32)).to(dtype), percentiles
    )
    np.testing.assert_allclose(scaled.numpy(), np.clip((dn - low) / (high - low), 0, 1), atol=1e-5)


@pytest.mark.parametrize("scale", ["reflectance", "percentile"])
@pytest.mark.parametrize("nodata", [0, 65535])
def test_pixels_without_data_are_zero_in_their_band_only(scale, nodata):
    dn = chips(low=5000, high=5001)
    dn[0, 2, 1, 1] = nodata
    data = DATA.model_copy(update={"nodata": nodata})
    percentiles = torch.tensor([1000.0, 9000.0]).expand(3, 4, 2)
    scaled = Normalize(InputParams(scale=scale), data)(dn, percentiles)
    assert scaled[0, 2, 1, 1] == 0
    assert int((scaled == 0).sum()) == 1


@pytest.mark.parametrize("value", [0, 1, 700, 65535])
def test_a_constant_chip_is_zero_in_the_percentile_scale(value):
    dn = np.full((2, 4, 3, 3), value, np.uint16)
    percentiles = np.full((2, 4, 2), value, np.float32)
    assert not Normalize(InputParams(scale="percentile"), DATA)(dn, percentiles).any()


@given(
    scale=st.sampled_from(["reflectance", "percentile"]),
    values=st.lists(st.floats(width=32), min_size=4, max_size=4),
    percentiles=st.tuples(st.floats(width=32), st.floats(width=32)),
)
def test_whatever_comes_in_finite_numbers_go_out(scale, values, percentiles):
    dn = torch.tensor(values).view(1, 1, 2, 2).expand(1, 4, 2, 2)
    scaled = Normalize(InputParams(scale=scale), DATA)(dn, torch.tensor(percentiles).expand(1, 4, 2))
    assert bool(scaled.isfinite().all())


@pytest.mark.parametrize("scale", ["reflectance", "percentile"])
def test_the_input_is_not_changed(scale):
    dn = torch.tensor([float("nan"), 0.0, 500.0, float("inf")]).view(1, 1, 2, 2).repeat(1, 4, 1, 1)
    before = dn.clone()
    Normalize(InputParams(scale=scale), DATA)(dn, torch.tensor([1.0, 2.0]).expand(1, 4, 2))
    assert torch.equal(dn.nan_to_num(), before.nan_to_num())


def test_reuse_returns_the_same_memory_also_for_a_smaller_last_batch():
    scaler = Normalize(InputParams(), DATA, reuse=True)
    first = scaler(chips(n=3))
    last = scaler(chips(seed=1, n=2))
    assert last.data_ptr() == first.data_ptr()
    assert torch.equal(last, Normalize(InputParams(), DATA)(chips(seed=1, n=2)))


def test_without_reuse_batches_are_independent():
    scaler = Normalize(InputParams(), DATA)
    first = scaler(chips())
    before = first.clone()
    scaler(chips(seed=1))
    assert torch.equal(first, before)


def test_the_scaler_adds_nothing_to_a_state_dict():
    assert not Normalize(InputParams(), DATA).state_dict()


def test_errors_name_what_is_missing():
    with pytest.raises(ValueError, match="expected N x 4 x H x W, got 1 x 3 x 2 x 2"):
        Normalize(InputParams(), DATA)(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="needs percentiles of 1 x 4 x 2, got none"):
        Normalize(InputParams(scale="percentile"), DATA)(torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match="got 2 x 4 x 2"):
        Normalize(InputParams(scale="percentile"), DATA)(torch.zeros(1, 4, 2, 2), torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match="4 means and 4 stds for the 1 bands"):
        Normalize(InputParams(), DataParams(bands=["B02"]))
    with pytest.raises(ValueError, match="std must be positive"):
        Normalize(InputParams(std=[0.1, 0.1, 0.0, 0.1]), DATA)


@pytest.mark.parametrize("scale", ["reflectance", "percentile"])
def test_views_of_the_store_scale_like_copies_of_them(scale):
    dn = np.random.default_rng(0).integers(1, 20_000, (8, 4, 6, 6), dtype=np.uint16)
    dn[1, 2, 0, 5] = 0  # one gap
    views = [View(transpose, flips).of(chip) for chip, (transpose, flips) in zip(dn, POLICIES["d4"], strict=True)]
    for view in views:
        view.flags.writeable = False
    percentiles = np.tile(np.array([500.0, 15_000.0], np.float32), (8, 4, 1))
    scaler = Normalize(InputParams(scale=scale), DATA)
    assert torch.equal(scaler(views, percentiles), scaler(np.stack(views), percentiles))
    assert torch.equal(scaler(views[2:5], percentiles[2:5]), scaler(views, percentiles)[2:5])
    with pytest.raises(ValueError, match="expected N x 4 x H x W, got 2 x 3 x 6 x 6"):
        scaler([view[:3] for view in views[:2]], percentiles[:2])
