"""Flips, turns and the symmetries of a square."""

from __future__ import annotations

import pytest
import torch

from cloudcover.augment.apply import augment
from helpers.batches import generator, numbered, only


@pytest.mark.parametrize(("name", "axis"), [("hflip", -1), ("vflip", -2)])
def test_a_certain_flip_flips_every_chip(name, axis):
    images, masks, _ = numbered(height=3, width=5)
    expected = masks.flip(axis)
    augment(images, masks, only(**{name: 1.0}), generator())
    assert torch.equal(masks, expected)


@pytest.mark.parametrize(("name", "numbers_of_turns"), [("rotate90", 3), ("d4", 8)])
def test_turns_and_symmetries_are_all_drawn(name, numbers_of_turns):
    square = torch.arange(4, dtype=torch.uint8).view(1, 2, 2)
    masks = square.repeat(80, 1, 1)
    augment(torch.zeros(80, 1, 2, 2), masks, only(**{name: 1}), generator())
    turned = [torch.rot90(s, k, (-2, -1)) for s in (square, square.flip(-1)) for k in range(4)]
    possible = {"rotate90": turned[1:4], "d4": turned}[name]
    assert {tuple(m.flatten().tolist()) for m in masks} == {tuple(p.flatten().tolist()) for p in possible}
    assert len(possible) == numbers_of_turns
