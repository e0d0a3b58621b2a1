"""Brightness and contrast."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcover.augment.apply import augment
from helpers.batches import generator, only


def test_brightness_and_contrast_differ_between_bands_within_their_limits():
    images = (2000 + 200 * torch.randn(30, 3, 64, 64, generator=generator())).to(torch.int32).to(torch.uint16)
    before, masks = images.float(), torch.ones(30, 64, 64, dtype=torch.uint8)
    augment(images, masks, only(brightness_contrast=1.0, brightness=0.3, contrast=0.5), generator())
    after = images.float()
    brightness = after.mean((2, 3)) / before.mean((2, 3))
    contrast = after.std((2, 3)) / before.std((2, 3))
    for ratio, limit in ((brightness, 0.3), (contrast, 0.5)):
        assert float((ratio - 1).abs().max()) < limit + 0.01
        assert float(ratio.min()) < 1 - limit / 2
        assert float(ratio.max()) > 1 + limit / 2
        assert float((ratio[:, 0] - ratio[:, 1]).abs().min()) > 0
    assert bool((masks == 1).all())


@pytest.mark.parametrize("nodata", [0, 65535])
def test_brightness_keeps_nodata_makes_none_and_stays_in_range(nodata):
    images = torch.randint(0, 65536, (6, 2, 64, 64), generator=generator(), dtype=torch.int32)
    images[:, :, :10] = nodata
    empty = images == nodata
    images = images.to(torch.uint16)
    before = images.clone()
    params = only(brightness_contrast=1.0, brightness=1.0, contrast=1.0)
    augment(images, torch.zeros(6, 64, 64, dtype=torch.uint8), params, generator(), nodata=nodata)
    assert torch.equal(images.int() == nodata, empty)
    assert not torch.equal(images, before)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), nodata=st.sampled_from([0, 255, 3000, 65535]), dark=st.integers(1, 3000))
def test_brightness_never_turns_the_order_of_a_bands_pixels_round(seed, nodata, dark):
    levels = torch.linspace(dark, 60_000, 4096).round().to(torch.int32)
    levels[levels == nodata] += 1 if nodata < 65535 else -1
    images = levels.reshape(1, 1, 64, 64).to(torch.uint16)
    params = only(brightness_contrast=1.0, brightness=0.4, contrast=0.6)
    augment(images, torch.zeros(1, 64, 64, dtype=torch.uint8), params, generator(seed), nodata=nodata)
    after = images.flatten().int()
    assert bool((after.diff() >= 0).all())
    assert not bool((after == nodata).any())
