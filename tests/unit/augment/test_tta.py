"""Views are undone exactly, and merging averages them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cloudcover.augment.tta import POLICIES, merge, views

policies = st.sampled_from(list(POLICIES))


@given(policy=policies, n=st.integers(1, 3), size=st.integers(1, 5), seed=st.integers(0, 1000))
def test_each_view_is_undone(policy, n, size, seed):
    batch = torch.rand(n, 2, size, size, generator=torch.Generator().manual_seed(seed))
    for view, seen in zip(POLICIES[policy], views(batch, policy).split(n), strict=True):
        assert torch.equal(view.undo(seen), batch)


@pytest.mark.parametrize("policy", ["none", "vflip", "hflip", "flips"])
def test_flips_take_chips_that_are_not_square(policy):
    batch = torch.rand(3, 2, 4, 6)
    assert torch.allclose(merge(views(batch, policy), policy, 3), batch)


def test_d4_has_the_eight_distinct_views_of_a_square():
    batch = torch.arange(9.0).view(1, 1, 3, 3)
    seen = {tuple(v.flatten().tolist()) for v in views(batch, "d4")}
    turned = [torch.rot90(b, k, (-2, -1)) for b in (batch, batch.flip(-1)) for k in range(4)]
    assert seen == {tuple(t.flatten().tolist()) for t in turned}


def test_vflip_is_an_up_down_flip_and_the_first_views_come_first():
    batch = torch.rand(2, 1, 3, 3)
    assert torch.equal(views(batch, "vflip"), torch.cat([batch, batch.flip(-2)]))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_model_that_turns_with_its_input_gives_the_same_result(policy):
    batch = torch.rand(2, 4, 6, 6)

    def model(x):
        return torch.sigmoid(torch.nn.functional.avg_pool2d(x.mean(1, keepdim=True), 3, 1, 1) * 4 - 2)

    assert torch.allclose(merge(model(views(batch, policy)), policy, 2), model(batch), atol=1e-6)


def test_merging_is_the_mean_of_views_turned_back():
    top = torch.zeros(1, 1, 4, 4)
    top[..., 0, :] = 1  # a model that always sees cloud at the top
    merged = merge(torch.cat([top, top]), "vflip", 1)
    assert merged[0, 0, :, 0].tolist() == [0.5, 0.0, 0.0, 0.5]


def test_merging_leaves_the_predictions_unchanged():
    predictions = torch.rand(4, 1, 3, 3)
    before = predictions.clone()
    merge(predictions, "flips", 1)
    assert torch.equal(predictions, before)


def test_errors_name_the_policy_and_the_shapes():
    with pytest.raises(ValueError, match="unknown TTA policy 'd8'; options: none, vflip"):
        views(torch.zeros(1, 1, 2, 2), "d8")
    with pytest.raises(ValueError, match="d4 needs square chips, got 2 x 3"):
        views(torch.zeros(1, 1, 2, 3), "d4")
    with pytest.raises(ValueError, match="vflip gives 2 views of 2 chips, got 3"):
        merge(torch.zeros(3, 1, 2, 2), "vflip", 2)
