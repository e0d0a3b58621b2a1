"""What holds for all augmentations: image, mask and weight stay aligned, and the generator alone decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudcover.augment.apply import AUGMENTATIONS, augment, augment_weighted
from cloudcover.config.augmentation import AugmentationParams
from helpers.batches import CHANGES, MIXING, blobs, generator, numbered, numbers, only

MOVING = ["hflip", "vflip", "rotate90", "d4", *MIXING]
"""Augmentations that give every pixel the value of another one."""
share = st.sampled_from([0.0, 0.3, 1.0])
every = pytest.mark.parametrize("change", list(CHANGES))


@given(
    chances=st.fixed_dictionaries(dict.fromkeys(MOVING, share)),
    crop=st.sampled_from([None, 32]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_image_mask_and_weight_stay_aligned_and_every_pixel_was_there_before(chances, crop, seed):
    images, masks, weight = numbered(height=64, width=64)
    images, masks, weight = augment_weighted(images, masks, weight, only(**chances, crop_size=crop), generator(seed))
    assert images.dtype == torch.uint16
    expected = torch.tensor([0, 1, 255, 0, 1], dtype=torch.uint8)[numbers(images) % 5]
    assert torch.equal(masks, expected)
    assert torch.equal(images[:, 1].to(torch.int32) - 1, masks.to(torch.int32))
    assert torch.equal(images[:, 2].to(torch.int32) - 1, numbers(images) // (64 * 64))
    if weight.ndim == 3:
        assert torch.equal(weight, images[:, 2].float())
    else:
        assert not any(chances[name] for name in MIXING)
        assert bool((images[:, 2].float() == weight[:, None, None]).all())


@every
def test_the_generator_alone_decides(change):
    results = []
    for seed in (7, 7, 8):
        torch.rand(1)  # the global generator moves on
        results.append(augment_weighted(*blobs(), only(**CHANGES[change]), generator(seed)))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    if change not in ("hflip", "vflip", "smaller", "larger"):  # certain, and without a choice
        assert not torch.equal(results[0][0], results[2][0])


@every
def test_dtypes_and_values_of_labels_stay(change):
    images, masks, _ = augment_weighted(*blobs(), only(**CHANGES[change]), generator())
    assert (images.dtype, masks.dtype) == (torch.uint16, torch.uint8)
    assert set(masks.unique().tolist()) == {0, 1, 255}


@every
def test_soft_labels_move_like_hard_ones(change):
    images, masks, weight = blobs()
    soft = torch.where(masks == 255, 255.0, masks * 0.7 + 0.2)
    hard = augment_weighted(images.clone(), masks, weight, only(**CHANGES[change]), generator(1))[1]
    moved = augment_weighted(images, soft, weight, only(**CHANGES[change]), generator(1))[1]
    if change == "chessmix":  # classes are counted to find the rare squares, and soft labels have none
        assert set(moved.unique().tolist()) == set(soft.unique().tolist())
    else:
        assert torch.equal(moved, torch.where(hard == 255, 255.0, hard * 0.7 + 0.2))


@every
def test_a_batch_that_is_not_contiguous_gives_the_same(change):
    images, masks, weight = blobs()
    turned = images.transpose(0, 1).contiguous().transpose(0, 1)
    plain = augment_weighted(images, masks.clone(), weight, only(**CHANGES[change]), generator())
    other = augment_weighted(turned, masks.clone(), weight, only(**CHANGES[change]), generator())
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))


@every
def test_chips_that_are_still_in_the_store_give_the_same(change):
    images, masks, weight = blobs()
    stored = [chip.copy() for chip in images.numpy()]
    for chip in stored:
        chip.flags.writeable = False  # as in the store
    turned = augment_weighted(stored, masks.clone(), weight, only(**{"vflip": 0.5, **CHANGES[change]}), generator())
    moved = augment_weighted(images, masks, weight, only(**{"vflip": 0.5, **CHANGES[change]}), generator())
    if change in ("hflip", "rotate90", "d4"):
        assert all(np.shares_memory(view, chip) for view, chip in zip(turned[0], stored, strict=True))
    assert torch.equal(torch.stack([torch.as_tensor(np.array(chip)) for chip in turned[0]]), moved[0])
    assert torch.equal(turned[1], moved[1])
    assert torch.equal(turned[2], moved[2])


@every
def test_a_batch_of_one_chip_works(change):
    images, masks, weight = blobs(n=1)
    before = images.clone()
    images, masks, _ = augment_weighted(images, masks, weight, only(**CHANGES[change]), generator())
    assert len(images) == len(masks) == 1
    if change in ("cutmix", "cloud_paste"):
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_probability_is_per_chip(name):
    images = torch.randint(1, 9999, (300, 2, 32, 32), generator=generator(1), dtype=torch.int32).to(torch.uint16)
    masks = torch.zeros(300, 32, 32, dtype=torch.uint8)
    masks[:, :9] = 1
    before = images.clone().int()
    augment(images, masks, only(**{name: 0.3}), generator())
    changed = (images.int() != before).flatten(1).any(1).float().mean()
    expected = 0.3 * 7 / 8 if name == "d4" else 0.3  # one symmetry of eight changes nothing
    assert float(changed) == pytest.approx(expected, abs=0.06)


def test_what_is_off_changes_nothing_and_draws_nothing():
    images, masks, weight = blobs()
    before, state = images.clone(), (draw := generator()).get_state()
    augment_weighted(images, masks, weight, only(), draw)
    assert torch.equal(images, before)
    assert torch.equal(draw.get_state(), state)


@pytest.mark.parametrize("name", ["vflip", "affine", "brightness_contrast", "cutmix"])
def test_only_pseudo_labelled_chips_get_the_noise_of_the_student(name):
    images, masks, weight = blobs(n=6)
    before, pseudo = images.clone().int(), [True, False, False, True, True, False]
    params = only(**{name: 0.0}, pseudo={name: 1.0})
    augment_weighted(images, masks, weight, params, generator(), pseudo=pseudo)
    assert (images.int() != before).flatten(1).any(1).tolist() == pseudo


def test_noise_of_the_student_can_be_less():
    images, masks, weight = blobs()
    before, params = images.clone().int(), only(vflip=1.0, pseudo={"vflip": 0.0})
    augment_weighted(images, masks, weight, params, generator(), pseudo=[True, False, True, False])
    assert (images.int() != before).flatten(1).any(1).tolist() == [False, True, False, True]


def test_student_noise_that_mixes_chips_gives_each_pixel_its_weight():
    images, masks, weight = blobs()
    params = only(pseudo={"cutmix": 1.0})
    _, _, weights = augment_weighted(images, masks, weight, params, generator(), pseudo=[True] * 4)
    assert weights.shape == masks.shape


def test_the_batch_is_changed_in_place_while_its_size_stays():
    images, masks, weight = blobs()
    given_images, given_masks = augment(images, masks, AugmentationParams(affine=1.0, cutmix=1.0), generator())
    assert given_images is images
    assert given_masks is masks
    smaller, _, weights = augment_weighted(images, masks, weight, only(crop_size=32), generator())
    assert smaller.shape == (4, 3, 32, 32)
    assert weights is weight


def test_without_weights_the_same_batch_comes_out():
    params = only(mosaic=0.5, cutmix=0.5, affine=0.5)
    images, masks, weight = blobs()
    plain = augment(images.clone(), masks.clone(), params, generator())
    weighted = augment_weighted(images, masks, weight, params, generator())
    assert torch.equal(plain[0], weighted[0])
    assert torch.equal(plain[1], weighted[1])


def test_every_probability_has_its_augmentation():
    described = {k for k, f in AugmentationParams.model_fields.items() if (f.description or "").startswith("prob")}
    assert {*AUGMENTATIONS, "multi_resolution"} == described
    assert [name for name in AUGMENTATIONS if only(**{name: 0.1}).mixes] == MIXING


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match="do not belong together"):
        augment(torch.zeros(2, 4, 8, 8), torch.zeros(2, 8, 4), AugmentationParams(), generator())
    for name in ("rotate90", "d4"):
        with pytest.raises(ValueError, match=f"{name} needs square chips, got 2 x 3"):
            augment(torch.zeros(1, 1, 2, 3), torch.zeros(1, 2, 3), AugmentationParams(**{name: 1}), generator())
    with pytest.raises(ValueError, match="crop_size 96 is larger than the chips, 64 x 64"):
        augment(*blobs()[:2], only(crop_size=96), generator())
    with pytest.raises(ValueError, match="chessmix_squares 100 is too many for chips of 64 x 64"):
        augment(*blobs()[:2], only(chessmix=1, chessmix_squares=100), generator())


def test_a_chip_without_any_data_stays_as_it_is():
    images, masks = torch.zeros(2, 2, 64, 64, dtype=torch.uint16), torch.full((2, 64, 64), 255, dtype=torch.uint8)
    augment(images, masks, only(**dict.fromkeys(AUGMENTATIONS, 1.0)), generator())
    assert not images.int().any()
    assert bool((masks == 255).all())


def test_a_weight_of_zero_follows_the_pixels_of_its_chip():
    images, masks, _ = numbered(n=2, height=32, width=32)
    weight = torch.tensor([1.0, 0.0])
    images, _, weights = augment_weighted(images, masks, weight, only(mosaic=1.0, crop_size=32), generator())
    assert torch.equal(weights, (images[:, 2].int() == 1).float())
    assert 0 < float(weights.mean()) < 1


def test_processes_that_share_a_batch_draw_one_resolution():
    params = only(multi_resolution=0.5, resolutions=[0.5, 1.0, 1.5], hflip=0.5)
    for step in range(12):
        sizes = set()
        for rank in range(3):
            images, masks, weight = numbered(height=64, width=64)
            turned, _, _ = augment_weighted(
                images, masks, weight, params, generator(100 * rank + step), of_batch=generator(step)
            )
            sizes.add(tuple(turned.shape[2:]))
        assert len(sizes) == 1
