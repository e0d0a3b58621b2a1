"""Losses: exact small cases, agreement with the sort in float64, and the properties that a loss must have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cloudcover.config.sections import TrainingParams
from cloudcover.losses.build import LOSSES, build_loss, smooth
from cloudcover.losses.lovasz import (
    _Histogram,
    lovasz_hinge,
    lovasz_hinge_sorted,
    lovasz_softmax,
    lovasz_softmax_sorted,
)
from cloudcover.losses.standard import focal, soft_dice, soft_jaccard

names = pytest.mark.parametrize("name", list(LOSSES))
both_softmax = pytest.mark.parametrize("lovasz", [lovasz_softmax, lovasz_softmax_sorted])
both = pytest.mark.parametrize("lovasz", [lovasz_hinge, lovasz_hinge_sorted])


def image(*rows: list[float]) -> Tensor:
    return torch.tensor([[list(rows)]], dtype=torch.float32)


def label(*rows: list[int]) -> Tensor:
    return torch.tensor([list(rows)], dtype=torch.uint8)


def batch(seed: int, n: int = 3, size: int = 12, cloud: float = 0.4, unknown: float = 0.2) -> tuple[Tensor, Tensor]:
    """Logits and targets of a half-trained model."""
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(n, size, size, generator=generator) < cloud).to(torch.uint8)
    logits = 2 * torch.randn(n, 1, size, size, generator=generator) + target[:, None].float() * 2 - 1
    target[torch.rand(n, size, size, generator=generator) < unknown] = 255
    return logits, target


def value_and_gradient(loss, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, target, weight)
    value.backward()
    return value.detach(), leaf.grad


# The Lovász hinge by hand. Errors are 1 - y s; J(p, n) = 1 - (P - p) / (P + n).


@both
def test_one_wrong_cloud_pixel_of_two(lovasz):
    # P = 2, errors 2 (a cloud pixel) and 0: L = 2 · J(1, 0) = 2 · 1/2
    value, gradient = value_and_gradient(lovasz, image([-1.0, 1.0]), label([1, 1]))
    assert value.item() == pytest.approx(1.0)
    assert gradient.flatten().tolist() == pytest.approx([-0.5, 0.0])


@both
def test_one_false_cloud_pixel_beside_one_true(lovasz):
    # P = 1, error 3 of the clear pixel: L = 3 · J(0, 1) = 3 · 1/2
    value, gradient = value_and_gradient(lovasz, image([2.0, 2.0]), label([0, 1]))
    assert value.item() == pytest.approx(1.5)
    assert gradient.flatten().tolist() == pytest.approx([0.5, 0.0])


@both
def test_two_wrong_pixels_in_order_of_their_errors(lovasz):
    # P = 1, errors 3 (clear) and 2 (cloud): L = 3 · J(0, 1) + 2 · (J(1, 1) - J(0, 1)) = 3/2 + 2/2
    value, gradient = value_and_gradient(lovasz, image([2.0, -1.0]), label([0, 1]))
    assert value.item() == pytest.approx(2.5)
    assert gradient.flatten().tolist() == pytest.approx([0.5, -0.5])


@both
def test_without_any_cloud_only_the_largest_error_counts(lovasz):
    # P = 0: J is 1 as soon as a single pixel is wrong
    value, gradient = value_and_gradient(lovasz, image([1.0, 3.0, -2.0]), label([0, 0, 0]))
    assert value.item() == pytest.approx(4.0)
    assert gradient.flatten().tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_equal_errors_of_both_classes_share_the_step():
    # P = 1, both errors 2. Cloud first: 1 and 0. Clear first: 1/2 and 1/2. The mean, where a sort takes either.
    value, gradient = value_and_gradient(lovasz_hinge, image([1.0, -1.0]), label([0, 1]))
    assert value.item() == pytest.approx(2.0)
    assert gradient.flatten().tolist() == pytest.approx([0.25, -0.75])


def test_on_hard_decisions_the_extension_is_the_jaccard_loss():
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(1, 9, 9, generator=generator) < 0.5).to(torch.uint8)
    wrong = torch.rand(1, 9, 9, generator=generator) < 0.3
    logits = torch.where(wrong, 0.0, 1.0) * (target.float() * 2 - 1)  # error 1 where wrong, else 0
    predicted = (target == 1) ^ wrong
    union = (predicted | (target == 1)).sum()
    jaccard = (predicted & (target == 1)).sum() / union
    assert lovasz_hinge(logits[:, None], target).item() == pytest.approx(1 - jaccard.item(), abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(
    ways=st.sampled_from([(lovasz_hinge, lovasz_hinge_sorted), (lovasz_softmax, lovasz_softmax_sorted)]),
    seed=st.integers(0, 10_000),
    cloud=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    unknown=st.sampled_from([0.0, 0.5]),
    weights=st.sampled_from([None, [1.0, 0.0, 2.5], "pixels"]),
    smoothing=st.sampled_from([None, 0.0, 0.3]),
    size=st.sampled_from([1, 4, 32]),
    scale=st.sampled_from([0.01, 1.0, 100.0]),
)
def test_histogram_stays_below_the_float64_sort_by_its_bound(
    ways, seed, cloud, unknown, weights, smoothing, size, scale
):
    logits, target = batch(seed, size=size, cloud=cloud, unknown=unknown)
    logits = logits * scale
    if weights == "pixels":
        weights = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)).tolist()
    weight = None if weights is None else torch.tensor(weights)
    labels = target if smoothing is None else smooth(target, smoothing)
    value, gradient = value_and_gradient(ways[0], logits, labels, weight)
    exact, exact_gradient = value_and_gradient(ways[1], logits.double(), labels, weight)
    assert exact.item() * (1 - 2**-10) <= value.item() * (1 + 1e-6) + 1e-7
    assert value.item() <= exact.item() * (1 + 1e-6) + 1e-7
    if ways[0] is lovasz_hinge and not smoothing:  # then the gradient adds up to J, whatever the order inside a bin
        assert gradient.abs().sum().item() == pytest.approx(exact_gradient.abs().sum().item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "ways", [(lovasz_hinge, lovasz_hinge_sorted), (lovasz_softmax, lovasz_softmax_sorted)], ids=["hinge", "softmax"]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradient_is_closer_to_float64_than_that_of_a_float32_sort(ways, smoothing):
    logits, target = batch(0, n=4, size=256)
    target = smooth(target, smoothing) if smoothing else target
    exact = value_and_gradient(ways[1], logits.double(), target)[1]
    histogram = value_and_gradient(ways[0], logits, target)[1]
    by_sort = value_and_gradient(ways[1], logits, target)[1]
    error, error_of_sort = ((g - exact).norm() / exact.norm() for g in (histogram, by_sort))
    assert error < 5e-4
    assert error < error_of_sort


gpu = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.fixture(params=["cpu", gpu])
def device(request):
    """Each device, with operations that are not deterministic refused."""
    torch.use_deterministic_algorithms(True)
    yield request.param
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("link", ["hinge", "softmax"])
@pytest.mark.parametrize("spread", [2.0, 0.01])
@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 0.37, 2.0], "pixels"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bins_counted_by_sorting_give_the_loss_of_the_float64_sort_in_any_order(
    device, link, spread, weight, smoothing
):
    logits, target = batch(1, n=4, size=256)
    logits = spread * logits
    target = smooth(target, smoothing) if smoothing else target
    if weight is not None:
        weight = torch.rand(target.shape) if weight == "pixels" else torch.tensor(weight)
    sort = {"hinge": lovasz_hinge_sorted, "softmax": lovasz_softmax_sorted}[link]
    exact, exact_gradient = value_and_gradient(sort, logits.double(), target, weight)

    def found(*given: Tensor | None) -> tuple[Tensor, Tensor]:
        moved = [None if tensor is None else tensor.to(device) for tensor in given]
        return value_and_gradient(lambda *arguments: _Histogram.apply(*arguments, link, True), *moved)

    value, gradient = (tensor.cpu() for tensor in found(logits, target, weight))
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert (gradient - exact_gradient).norm() < 5e-3 * exact_gradient.norm()
    chips = torch.arange(3, -1, -1)
    turned = found(logits[chips], target[chips], None if weight is None else weight[chips])[1].cpu()
    assert torch.equal(turned[chips], gradient)


@pytest.mark.parametrize("offset", [0.3, 1.7])
def test_gradient_of_the_histogram_is_the_slope_of_its_value(offset):
    # All errors lie deep inside their bins, so that a small step changes no histogram.
    logits = image([offset, -0.6, 2.3, -1.9])
    target = label([0, 1, 1, 0])
    gradient = value_and_gradient(lovasz_hinge, logits, target)[1].flatten()
    for i in range(4):
        step = torch.zeros(4)
        step[i] = 1e-4
        up, down = (lovasz_hinge(logits.double() + sign * step.view(1, 1, 1, 4), target) for sign in (1, -1))
        assert ((up - down) / 2e-4).item() == pytest.approx(gradient[i].item(), abs=5e-3)


@both_softmax
def test_softmax_of_hard_masks_is_the_jaccard_loss(lovasz):
    generator = torch.Generator().manual_seed(4)
    target = (torch.rand(1, 9, 9, generator=generator) < 0.5).to(torch.uint8)
    wrong = torch.rand(1, 9, 9, generator=generator) < 0.3
    logits = torch.where(wrong, -80.0, 80.0) * (target.float() * 2 - 1)
    predicted = (target == 1) ^ wrong
    jaccard = (predicted & (target == 1)).sum() / (predicted | (target == 1)).sum()
    assert lovasz(logits[:, None], target).item() == pytest.approx(1 - jaccard.item(), abs=1e-6)


@both_softmax
def test_softmax_of_two_pixels_by_hand(lovasz):
    # Errors 0.8 (a cloud pixel) and 0.1 (a clear one), P = 1: L = 0.8 J(1, 0) + 0.1 (J(1, 1) - J(1, 0)) = 0.8
    logits = torch.logit(torch.tensor([0.2, 0.1])).view(1, 1, 1, 2)
    value, gradient = value_and_gradient(lovasz, logits, label([1, 0]))
    assert value.item() == pytest.approx(0.8, abs=1e-6)
    assert gradient.flatten().tolist() == pytest.approx([-0.8 * 0.2, 0.0], abs=1e-6)
    # Errors 0.1 (cloud) and 0.8 (clear): L = 0.8 J(0, 1) + 0.1 (J(1, 1) - J(0, 1)) = 0.8 / 2 + 0.1 / 2
    value, gradient = value_and_gradient(lovasz, torch.logit(torch.tensor([0.9, 0.8])).view(1, 1, 1, 2), label([1, 0]))
    assert value.item() == pytest.approx(0.45, abs=1e-6)
    assert gradient.flatten().tolist() == pytest.approx([-0.09 / 2, 0.16 / 2], abs=1e-6)


def test_lovasz_takes_half_precision_logits_and_returns_their_gradient():
    logits, target = batch(3)
    value, gradient = value_and_gradient(lovasz_hinge, logits.bfloat16(), target)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert value.item() == pytest.approx(lovasz_hinge(logits.bfloat16().float(), target).item())


def test_nan_logits_give_a_nan_loss():
    logits, target = batch(4)
    logits[0, 0, 0, 0] = float("nan")
    target[0, 0, 0] = 1
    for name in LOSSES:
        assert build_loss(name)(logits, target, None).isnan(), name


def test_shapes_that_do_not_belong_together_are_refused():
    logits, target = batch(0)
    for name in LOSSES:
        with pytest.raises(ValueError, match=r"\(2, 12, 12\)"):
            build_loss(name)(logits, target[:2], None)
        for weight in (torch.ones(2), torch.ones(3, 12), torch.ones(3, 12, 11)):
            with pytest.raises(ValueError, match="N weights"):
                build_loss(name)(logits, target, weight)


# Properties of every loss.


@names
def test_a_better_prediction_has_a_lower_loss(name):
    _, target = batch(1)
    right = (target[:, None] == 1).float() * 2 - 1
    values = [build_loss(name)(right * confidence, target, None).item() for confidence in (-3, -1, 0, 0.5, 3, 6)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


@names
def test_a_perfect_and_certain_prediction_has_no_loss(name):
    _, target = batch(1)
    certain = ((target[:, None] == 1).float() * 2 - 1) * 50
    assert build_loss(name)(certain, target, None).item() == pytest.approx(0, abs=1e-5)


@names
def test_the_gradient_pulls_every_pixel_towards_its_label(name):
    logits, target = batch(2)
    gradient = value_and_gradient(build_loss(name), logits, target)[1][:, 0]
    assert bool((gradient[target == 1] <= 0).all())
    assert bool((gradient[target == 0] >= 0).all())
    assert bool(gradient.any())


@names
@pytest.mark.parametrize("weight", [None, [1.0, 0.5, 3.0]])
def test_unknown_pixels_change_neither_loss_nor_gradient(name, weight):
    logits, target = batch(2)
    weights = None if weight is None else torch.tensor(weight)
    other = torch.where(target[:, None] == 255, -7 * logits, logits)
    value, gradient = value_and_gradient(build_loss(name), logits, target, weights)
    other_value, other_gradient = value_and_gradient(build_loss(name), other, target, weights)
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    assert not gradient[:, 0][target == 255].any()


@names
def test_the_order_of_pixels_does_not_matter(name):
    logits, target = batch(2)
    order = torch.randperm(144, generator=torch.Generator().manual_seed(0))
    shuffled = logits.flatten(2)[..., order].view_as(logits), target.flatten(1)[:, order].view_as(target)
    assert build_loss(name)(*shuffled, None).item() == pytest.approx(
        build_loss(name)(logits, target, None).item(), rel=1e-5
    )


@names
def test_a_chip_of_weight_two_counts_like_two_chips(name):
    logits, target = batch(5)
    twice = torch.cat([logits, logits[:1]]), torch.cat([target, target[:1]])
    weighted = build_loss(name)(logits, target, torch.tensor([2.0, 1.0, 1.0]))
    assert weighted.item() == pytest.approx(build_loss(name)(*twice, None).item(), rel=1e-5)


@names
def test_a_chip_of_weight_zero_counts_like_none(name):
    logits, target = batch(5)
    value, gradient = value_and_gradient(build_loss(name), logits, target, torch.tensor([0.0, 1.0, 1.0]))
    assert value.item() == pytest.approx(build_loss(name)(logits[1:], target[1:], None).item(), rel=1e-5)
    assert not gradient[0].any()


@names
@pytest.mark.parametrize("unlabelled", ["unknown", "weightless"])
def test_a_batch_without_a_known_pixel_gives_zero(name, unlabelled):
    logits, target = batch(6)
    weight = torch.zeros(3) if unlabelled == "weightless" else None
    if unlabelled == "unknown":
        target = torch.full_like(target, 255)
    value, gradient = value_and_gradient(build_loss(name), logits, target, weight)
    assert value.item() == 0
    assert not gradient.any()


@names
def test_integer_labels_of_any_width_give_the_same(name):
    logits, target = batch(7)
    assert torch.equal(build_loss(name)(logits, target, None), build_loss(name)(logits, target.long(), None))


@names
def test_a_batch_of_one_chip_of_one_band_of_pixels_works(name):
    assert build_loss(name)(torch.randn(1, 1, 1, 7), torch.ones(1, 1, 7, dtype=torch.uint8), None).isfinite()


def test_cross_entropy_is_torchs_over_known_pixels():
    logits, target = batch(8)
    known = target != 255
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0][known], target[known].float())
    assert build_loss("cross_entropy")(logits, target, None).item() == pytest.approx(expected.item(), rel=1e-6)


def test_soft_overlaps_of_hard_predictions_are_the_counts():
    logits, target = image([60.0, 60.0, -60.0, -60.0]), label([1, 0, 1, 0])  # one true, one false, one missed
    assert soft_dice(logits, target).item() == pytest.approx(1 - 3 / 5)
    assert soft_jaccard(logits, target).item() == pytest.approx(1 - 2 / 4)


def test_focal_loss_of_one_pixel():
    probability = torch.tensor(0.8)
    expected = 0.2**2 * -torch.log(probability)
    assert focal(torch.logit(probability).view(1, 1, 1, 1), label([1])).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_focal_loss_of_a_soft_label_that_is_met_is_zero():
    assert focal(torch.logit(torch.tensor(0.3)).view(1, 1, 1, 1), torch.tensor([[[0.3]]])).item() == pytest.approx(0)


def test_registry_and_parameters_offer_the_same_losses():
    from typing import get_args

    assert set(LOSSES) == set(get_args(TrainingParams.model_fields["loss"].annotation))


def test_an_unknown_loss_gets_the_nearest_name_and_the_options():
    with pytest.raises(
        ValueError, match=r"unknown loss 'lovas'; did you mean lovasz\? \(options: lovasz, lovasz_softmax"
    ):
        build_loss("lovas")


# Weights per pixel, soft labels, label smoothing.


@names
def test_a_weight_per_pixel_is_the_same_as_a_weight_per_chip(name):
    logits, target = batch(5)
    weight = torch.tensor([2.0, 0.0, 0.7])
    per_chip = value_and_gradient(build_loss(name), logits, target, weight)
    per_pixel = value_and_gradient(build_loss(name), logits, target, weight[:, None, None].expand_as(target))
    assert torch.equal(per_chip[0], per_pixel[0])
    assert torch.equal(per_chip[1], per_pixel[1])


@names
def test_a_pixel_of_weight_zero_is_like_an_unknown_one(name):
    logits, target = batch(5)
    weight = (torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    value, gradient = value_and_gradient(build_loss(name), logits, target, weight)
    expected, _ = value_and_gradient(build_loss(name), logits, torch.where(weight > 0, target, 255))
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert not gradient[:, 0][weight == 0].any()


@names
def test_soft_labels_of_zero_and_one_are_hard_ones(name):
    logits, target = batch(9)
    for weight in (None, torch.tensor([1.0, 0.5, 3.0])):
        hard = value_and_gradient(build_loss(name), logits, target, weight)
        soft = value_and_gradient(build_loss(name), logits, target.float(), weight)
        assert soft[0].item() == pytest.approx(hard[0].item(), rel=1e-6)
        assert torch.allclose(soft[1], hard[1], atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "lovasz", "lovasz_softmax", "bce_lovasz"])
def test_a_soft_label_counts_like_repeated_pixels_in_its_proportion(name):
    logits, target = batch(10, n=1)
    soft = torch.where(target == 255, 255.0, torch.where(target == 1, 0.75, 0.25))
    repeated = torch.stack([torch.where(target == 255, 255, (soft > k / 4 + 0.1).int()) for k in range(4)], 1)
    expected = build_loss(name)(logits.repeat(4, 1, 1, 1), repeated[0], None)
    assert build_loss(name)(logits, soft, None).item() == pytest.approx(expected.item(), rel=1e-5)


@names
def test_unknown_pixels_of_soft_labels_are_left_out(name):
    logits, target = batch(11)
    soft = smooth(target, 0.2)
    other = torch.where(target[:, None] == 255, 5.0, logits)
    value, gradient = value_and_gradient(build_loss(name), logits, soft)
    other_value, _ = value_and_gradient(build_loss(name), other, soft)
    assert torch.equal(value, other_value)
    assert not gradient[:, 0][target == 255].any()


@pytest.mark.parametrize("loss", [build_loss("cross_entropy"), focal, soft_dice, soft_jaccard])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_soft_labels_are_fitted_by_their_own_probability(loss, share):
    target = torch.full((1, 20, 20), share)
    probabilities = torch.linspace(0.01, 0.99, 99)
    values = [loss(torch.logit(p).expand(1, 1, 20, 20), target, None).item() for p in probabilities]
    assert float(probabilities[values.index(min(values))]) == pytest.approx(share, abs=0.011)


@pytest.mark.parametrize("loss", [lovasz_hinge, lovasz_softmax])
def test_lovasz_of_soft_labels_prefers_the_more_likely_mask(loss):
    target = torch.tensor([[[0.9, 0.9, 0.8, 0.1, 0.2, 0.1]]])
    likely = image([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    best = loss(likely, target).item()
    for i in range(6):
        other = likely.clone()
        other[..., i] *= -1
        assert loss(other, target).item() > best


def test_smoothing_moves_labels_towards_the_middle_and_keeps_unknown_ones():
    smoothed = smooth(label([0, 1, 255]), 0.2)
    assert smoothed.flatten().tolist() == pytest.approx([0.1, 0.9, 255])
    assert smooth(smoothed, 0.0).flatten().tolist() == pytest.approx([0.1, 0.9, 255])


@names
def test_label_smoothing_is_the_loss_of_smoothed_labels(name):
    logits, target = batch(12)
    smoothed = build_loss(name, label_smoothing=0.1)(logits, target, None)
    assert torch.equal(smoothed, build_loss(name)(logits, smooth(target, 0.1), None))
    assert not torch.equal(smoothed, build_loss(name)(logits, target, None))
    assert build_loss(name, 0.0) is LOSSES[name]


def test_pseudo_labels_weigh_by_their_round():
    assert [TrainingParams(pseudo_weight=0.5).weight_of_round(r) for r in (1, 2, 3)] == [0.5, 0.5, 0.5]
    assert [TrainingParams(pseudo_weight=[0.2, 0.6]).weight_of_round(r) for r in (1, 2, 3)] == [0.2, 0.6, 0.6]
    with pytest.raises(ValueError, match="pseudo_weight"):
        TrainingParams(pseudo_weight=[])
    with pytest.raises(ValueError, match="pseudo_weight"):
        TrainingParams(pseudo_weight=[1.0, -1.0])
