"""Augmentations that mix chips: mosaic, cutmix, chessmix and pasted clouds."""

from __future__ import annotations

import pytest
import torch

from cloudcover.augment.apply import augment, augment_weighted
from helpers.batches import generator, numbered, numbers, only


def test_mosaic_puts_four_windows_around_a_point():
    images, masks, weight = numbered(n=6, height=32, width=32)
    images, _, weights = augment_weighted(images, masks, weight, only(mosaic=1.0), generator())
    for i, (chip, number) in enumerate(zip(weights, numbers(images), strict=True)):
        right, down = (number[:, 1:] - number[:, :-1]) != 1, (number[1:] - number[:-1]) != 32
        (x,), (y,) = right.all(0).nonzero(), down.all(1).nonzero()  # the only seams
        assert 7 <= int(x) <= 24
        assert 7 <= int(y) <= 24
        assert not right[:, : int(x)].any()
        assert not right[:, int(x) + 1 :].any()
        corners = [int(chip[a, b]) for a in (0, -1) for b in (0, -1)]
        assert i + 1 in corners
        assert bool((chip[: int(y) + 1, : int(x) + 1] == corners[0]).all())
        assert bool((chip[int(y) + 1 :, int(x) + 1 :] == corners[3]).all())


def test_cutmix_takes_one_rectangle_from_the_same_place_of_another_chip():
    areas = []
    for seed in range(60):
        images, masks, weight = numbered(height=16, width=16)
        before = numbers(images)
        images, _, weights = augment_weighted(images, masks, weight, only(cutmix=1.0), generator(seed))
        for i, chip in enumerate(weights):
            taken = chip != i + 1
            areas.append(float(taken.float().mean()))
            rows, columns = taken.any(1), taken.any(0)
            assert torch.equal(taken, rows[:, None] & columns[None])
            if taken.any():
                (source,) = (chip[taken].unique() - 1).int().tolist()
                assert torch.equal(numbers(images)[i][taken], before[source][taken])
    assert min(areas) < 0.05
    assert max(areas) > 0.6


def test_chessmix_replaces_every_second_square_and_keeps_the_others():
    images, masks, weight = numbered(n=4, height=34, width=34)  # two rows and columns are left over
    before = numbers(images)
    params = only(chessmix=1.0, chessmix_squares=4)
    images, _, _ = augment_weighted(images, masks, weight, params, generator())
    colours = []
    for old, new in zip(before, numbers(images), strict=True):
        squares = torch.tensor([[bool((old == new)[r : r + 8, c : c + 8].all()) for c in range(0, 32, 8)]
                                for r in range(0, 32, 8)])  # fmt: skip
        parity = (torch.arange(4)[:, None] + torch.arange(4)) % 2
        colour = next(k for k in (0, 1) if bool(squares[parity == k].all()))
        assert int(squares[parity != colour].sum()) <= 1  # a square may by chance replace itself
        assert torch.equal(old[32:], new[32:])
        assert torch.equal(old[:, 32:], new[:, 32:])
        colours.append(colour)
    assert set(colours) == {0, 1}


@pytest.mark.parametrize("rare", [0, 1])
def test_chessmix_prefers_squares_of_the_rarer_class(rare):
    masks = torch.full((4, 64, 64), 1 - rare, dtype=torch.uint8)
    masks[0, :16, :16] = rare  # one square of 64: drawn evenly it would fill a 64th, now (1.1 / 7.4) of the new ones
    drawn = []
    for seed in range(40):
        mixed = masks.clone()
        augment(torch.zeros(4, 1, 64, 64), mixed, only(chessmix=1.0), generator(seed))
        drawn.append(float((mixed[1:] == rare).float().mean()) * 2)  # half of the squares are new
    assert sum(drawn) / 40 == pytest.approx(1.1 / (1.1 + 63 * 0.1), abs=0.03)


@pytest.mark.parametrize("width", [15, 16])  # with 15 both chips have their clouds in the same place
def test_cloud_paste_moves_clouds_with_all_bands_and_nothing_else(width):
    images, masks, weight = numbered(n=2, height=16, width=width)
    images[0, 2, 3] = 0  # a row of chip 0 has no data in one band
    old_images, old_masks = images.clone().int(), masks.clone()
    images, masks, weights = augment_weighted(images, masks, weight, only(cloud_paste=1.0), generator())
    for i, j in ((0, 1), (1, 0)):
        pasted = old_masks[j] == 1
        if j == 0:
            pasted[3] = False
        assert torch.equal(images[i].int(), torch.where(pasted, old_images[j], old_images[i]))
        assert torch.equal(masks[i], torch.where(pasted, 1, old_masks[i]))
        assert torch.equal(weights[i], torch.where(pasted, weight[j], weight[i]))
