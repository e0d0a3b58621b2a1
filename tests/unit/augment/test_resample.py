"""Rotation and zoom, windows, other resolutions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cloudcover.augment.apply import augment, augment_weighted
from helpers.batches import CHANGES, blobs, generator, numbered, only


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
