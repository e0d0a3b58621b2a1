"""Random views of real chips: shape and meaning stay, and an atmosphere can be put before a surface and taken away."""

from __future__ import annotations

import numpy as np
import pytest
from baselines.real_views import FLOOR, RealChip, RealViews, above, below, light

from cloudcover.synthetic.atmosphere import air

BRIGHT, DARK = 8_000, 500


def chip(name: str, level: str, size: int = 96) -> RealChip:
    """A chip whose left half is bright and cloud, with a corner without data."""
    bands = np.full((4, size, size), DARK, np.uint16)
    bands[:, :, : size // 2] = BRIGHT
    bands[:, :4, -4:] = 0
    label = (bands[0] == BRIGHT).astype(np.uint8)
    return RealChip(name, name, level, bands, label)


def test_images_and_labels_stay_together():
    images, labels = RealViews([chip("a", "l2a"), chip("b", "l1c", 200)], 64).draw(12, np.random.default_rng(0))
    assert images.shape == (12, 4, 64, 64)
    assert images.dtype == np.uint16
    assert labels.shape == (12, 64, 64)
    assert images.min() >= 1
    for image, label in zip(images, labels, strict=True):
        assert set(np.unique(label)) <= {0, 1, 255}
        if (label == 1).any() and (label == 0).any():
            assert np.median(image[0][label == 1]) > 2 * np.median(image[0][label == 0])


def test_pixels_without_data_have_no_label():
    empty = chip("a", "l2a")
    empty.bands[:] = 0
    _, labels = RealViews([empty], 64).draw(2, np.random.default_rng(0))
    assert (labels == 255).all()


def test_both_levels_count_the_same_however_many_chips_they_have():
    views = RealViews([chip("a", "l2a"), chip("b", "l1c"), chip("c", "l1c"), chip("d", "l1c")], 64)
    assert views.chance == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])


def test_an_atmosphere_that_was_put_before_a_surface_can_be_taken_away():
    ground = np.random.default_rng(0).uniform(FLOOR, 1, (4, 40, 40)).astype(np.float32)
    ground[:, 0, :20] = FLOOR
    between = air(np.random.default_rng(1), 0.7)
    seen = above(ground, between)
    assert (seen[0] > ground[0])[ground[0] < 0.1].all()  # blue air over dark ground
    assert below(seen, between) == pytest.approx(ground, abs=0.01)


def test_no_ground_becomes_darker_than_the_floor():
    dark = np.full((4, 8, 8), 0.01, np.float32)  # darker than any air, so it cannot have been behind all of it
    between = air(np.random.default_rng(1), 0.5)
    assert below(dark, between).min() >= FLOOR * 0.99


def test_the_light_leaves_the_bands_proportions():
    flat = np.array([0.8, 0.7, 0.6, 0.5], np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    ratios = []
    for seed in range(40):
        changed = light(flat, "l2a", np.random.default_rng(seed))[:, 0, 0]
        ratios.append(changed[3] / changed[2] / (5 / 6))
    assert np.std(np.log(ratios)) < 0.06
