"""Augmentations keep image, mask and weight aligned, are decided by the generator, and do what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cloudcover.augment.apply import AUGMENTATIONS, augment, augment_weighted
from cloudcover.config.augmentation import AugmentationParams

MOVING = ["hflip", "vflip", "rotate90", "d4", "mosaic", "cutmix", "chessmix", "cloud_paste"]
"""Augmentations that give every pixel the value of another one."""
MIXING = ["mosaic", "cutmix", "chessmix", "cloud_paste"]
CHANGES = {
    **{name: {name: 1.0} for name in AUGMENTATIONS},
    "crop": {"crop_size": 32},
    "smaller": {"multi_resolution": 1.0, "resolutions": [0.5]},
    "larger": {"multi_resolution": 1.0, "resolutions": [1.4]},
}
share = st.sampled_from([0.0, 0.3, 1.0])
every = pytest.mark.parametrize("change", list(CHANGES))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**values: object) -> AugmentationParams:
    """Parameters with all other augmentations off."""
    return AugmentationParams(**{"hflip": 0.0, "vflip": 0.0, **values})


def numbered(n: int = 5, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """A batch in which band 0 numbers the pixels (high numbers first), band 1 is the mask, band 2 tells the chip."""
    number = torch.arange(n * height * width, dtype=torch.int32).view(n, height, width)
    masks = torch.tensor([0, 1, 255, 0, 1])[number % 5]
    chip = torch.arange(1, n + 1, dtype=torch.int32)[:, None, None].expand_as(number)
    images = torch.stack([65535 - number, masks.to(torch.int32) + 1, chip], 1).to(torch.uint16)
    return images, masks.to(torch.uint8), torch.arange(1, n + 1).float()


def numbers(images: Tensor) -> Tensor:
    return 65535 - images[:, 0].to(torch.int32)


def blobs(n: int = 4, size: int = 64, bands: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of smooth clouds with some unknown pixels and a stripe without data."""
    draw = generator(3)
    field = torch.nn.functional.avg_pool2d(torch.randn(n, 1, size, size, generator=draw), 17, 1, 8)[:, 0]
    masks = (field > 0.02).to(torch.uint8)
    images = 900 + 3000 * masks[:, None] + 300 * torch.rand(n, bands, size, size, generator=draw)
    masks[torch.rand(n, size, size, generator=draw) < 0.05] = 255
    images[:, :, :, 5:9] = 0
    return images.to(torch.int32).to(torch.uint16), masks, torch.linspace(0.5, 1, n)


# What holds for all of them


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


# Flips and turns


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


# Rotation, zoom, windows, resolutions


def gradient(plane: Tensor, known: Tensor) -> tuple[float, float, float]:
    """Slopes by x and y and the value at the centre of a plane, where it must be flat to a rounding."""
    height, width = plane.shape
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    design = torch.stack([x[known], y[known], torch.ones_like(x[known])], 1).double()
    fit = torch.linalg.lstsq(design, plane[known].double()[:, None]).solution
    assert float((design @ fit - plane[known].double()[:, None]).abs().max()) < 0.6
    return tuple(fit[:, 0].tolist())


@pytest.mark.parametrize("shape", [(64, 64), (48, 80)])
def test_affine_rotates_and_zooms_about_the_centre_within_its_limits(shape):
    height, width = shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([9000 + 40 * x, 9000 + 40 * y]).to(torch.int32).to(torch.uint16)
    images, masks = image[None].repeat(40, 1, 1, 1), torch.zeros(40, *shape, dtype=torch.uint8)
    augment(images, masks, only(affine=1.0, rotation=30, zoom=2.0), generator())
    angles, zooms = [], []
    for chip, mask in zip(images, masks, strict=True):
        inside = mask != 255
        # Half a pixel at the chip's border is held and not linear.
        inside &= torch.nn.functional.avg_pool2d(inside[None].float(), 3, 1, 1)[0] > 0.99
        inside[0], inside[-1], inside[:, 0], inside[:, -1] = False, False, False, False
        xx, xy, x0 = gradient(chip[0].float(), inside)
        yx, yy, y0 = gradient(chip[1].float(), inside)
        assert (x0, y0) == pytest.approx((9000 + 20 * (width - 1), 9000 + 20 * (height - 1)), abs=0.6)
        assert (xx, xy) == pytest.approx((yy, -yx), abs=0.1)  # a rotation and one zoom for both axes
        angles.append(math.degrees(math.atan2(yx, yy)))
        zooms.append(40 / math.hypot(xx, xy))
    assert max(map(abs, angles)) <= 30.2
    assert min(angles) < -15
    assert max(angles) > 15
    assert 0.49 <= min(zooms) < 0.8
    assert 1.25 < max(zooms) <= 2.02


@pytest.mark.parametrize("change", ["affine", "smaller", "larger"])
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("edge", [13, 32, 40])
def test_bilinear_images_and_nearest_labels_share_their_edges(change, axis, edge):
    # Across a straight edge the interpolated value passes the middle where the nearest label changes.
    masks = torch.zeros(4, 96, 96, dtype=torch.uint8)
    masks.narrow(axis, 0, edge).fill_(1)
    images = (1000 + 2000 * masks[:, None].int()).to(torch.uint16)
    images, masks = augment(images, masks, only(**CHANGES[change]), generator(5))
    pixels = images[:, 0].int()
    known = (masks != 255) & ((pixels - 2000).abs() > 20)
    assert torch.equal((pixels > 2000)[known], (masks == 1)[known])
    assert float(known.float().mean()) > 0.5


@pytest.mark.parametrize("change", ["affine", "smaller", "larger"])
@pytest.mark.parametrize("nodata", [0, 65535])
def test_pixels_without_data_do_not_bleed_into_others(change, nodata):
    images = torch.full((4, 2, 64, 64), 3000, dtype=torch.int32)
    images[:, 0, 10:25] = nodata
    masks = torch.zeros(4, 64, 64, dtype=torch.uint8)
    images, _ = augment(images.to(torch.uint16), masks, only(**CHANGES[change]), generator(), nodata=nodata)
    assert set(images.int().unique().tolist()) == {3000, nodata}
    assert bool((images[:, 0].int() == nodata).any())
    if change != "affine":
        assert not (images[:, 1].int() == nodata).any()


def test_outside_of_the_chip_nothing_is_known():
    images = torch.full((8, 2, 64, 64), 3000, dtype=torch.uint16)
    masks = torch.ones(8, 64, 64, dtype=torch.uint8)
    augment(images, masks, only(affine=1.0, rotation=180, zoom=2.0), generator(2))
    assert bool((masks == 255).any())
    assert torch.equal(masks == 255, images[:, 0].int() == 0)
    assert torch.equal(masks == 1, images[:, 1].int() == 3000)


def test_an_affine_map_that_changes_nothing_returns_the_chip():
    images, masks, _ = blobs()
    expected = images.clone(), masks.clone()
    augment(images, masks, only(affine=1.0, rotation=0.0, zoom=1.0), generator())
    assert torch.equal(images, expected[0])
    assert torch.equal(masks, expected[1])


def test_windows_are_drawn_from_the_whole_chip():
    images, masks, weight = numbered(n=50, height=36, width=34)
    images, _, _ = augment_weighted(images.int(), masks, weight, only(crop_size=32), generator())
    corners = (65535 - images[:, 0, 0, 0]) % (36 * 34)
    assert set((corners // 34).tolist()) == set(range(5))
    assert set((corners % 34).tolist()) == set(range(3))


@pytest.mark.parametrize(("factor", "size"), [(0.75, 96), (0.6, 64), (0.1, 32), (1.25, 160)])
def test_resolutions_are_multiples_of_32(factor, size):
    images, masks = torch.full((2, 3, 128, 128), 7, dtype=torch.uint16), torch.ones(2, 128, 128, dtype=torch.uint8)
    images, masks = augment(images, masks, only(multi_resolution=1, resolutions=[factor]), generator())
    assert images.shape == (2, 3, size, size)
    assert masks.shape == (2, size, size)
    assert bool((images.int() == 7).all())
    assert bool((masks == 1).all())


def test_a_lower_resolution_is_the_mean_of_all_pixels():
    images = torch.randint(1, 10000, (1, 1, 128, 128), generator=generator(), dtype=torch.int32).to(torch.uint16)
    masks = torch.zeros(1, 128, 128, dtype=torch.uint8)
    small, _ = augment(images, masks, only(multi_resolution=1, resolutions=[0.25]), generator())
    assert float(small.float().mean()) == pytest.approx(float(images.float().mean()), rel=0.01)
    assert float(small.float().std()) < float(images.float().std()) / 3


def test_the_resolution_is_drawn_per_batch():
    params, draw = only(multi_resolution=0.5, resolutions=[0.5, 1.5]), generator()
    batches = [augment(*blobs()[:2], params, draw)[1] for _ in range(60)]
    sizes = [len(masks[0]) for masks in batches]
    assert set(sizes) == {32, 64, 96}
    assert sizes.count(64) == pytest.approx(30, abs=10)


# Brightness and contrast


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


def test_a_chip_without_any_data_stays_as_it_is():
    images, masks = torch.zeros(2, 2, 64, 64, dtype=torch.uint16), torch.full((2, 64, 64), 255, dtype=torch.uint8)
    augment(images, masks, only(**dict.fromkeys(AUGMENTATIONS, 1.0)), generator())
    assert not images.int().any()
    assert bool((masks == 255).all())


# Mixing


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
