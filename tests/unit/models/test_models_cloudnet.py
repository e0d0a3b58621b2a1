"""Cloud-Net has the shapes of its paper and uses each of its paths."""

from __future__ import annotations

import pytest
import torch

from cloudcover.config.sections import ModelParams
from cloudcover.models.build import build_model
from cloudcover.models.cloudnet import CloudNet, Contracting, Expanding, gather
from helpers.layouts import BANDS


def test_the_network_has_36_million_weights():
    assert sum(p.numel() for p in CloudNet(4).parameters()) == 36_448_673


def test_levels_halve_in_size_and_double_in_channels():
    network, shapes = CloudNet(4, width=2).eval(), []
    for block in (*network.contracting, network.bridge, *network.expanding):
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert network(torch.randn(2, 4, 64, 96)).shape == (2, 1, 64, 96)
    down = [(4, 64, 96), (8, 32, 48), (16, 16, 24), (32, 8, 12), (64, 4, 6)]
    assert shapes == [*down, (128, 2, 3), *reversed(down)]


@pytest.mark.parametrize("options", [{}, {"deep": True}, {"dropout": True}])
def test_a_contracting_block_keeps_its_input_in_a_shortcut(options):
    block = Contracting(3, **options).eval()
    assert block(torch.randn(1, 3, 8, 8)).shape == (1, 6, 8, 8)
    for part in (block.main, block.third, block.middle):
        if part is not None:
            part[-2].weight.data.zero_()  # the normalisation: all that remains is the shortcut
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(block(x)[:, :3], x)


def test_dropout_is_only_in_the_bridge_and_only_in_training():
    assert [type(m).__name__ for m in CloudNet(4, width=2).modules()].count("Dropout") == 1
    block, x = Contracting(3, dropout=True), torch.rand(2, 3, 8, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_gather_pools_repeats_and_adds_all_shallower_levels():
    first = torch.arange(16.0).view(1, 1, 4, 4)
    second, own = torch.full((1, 2, 2, 2), 100.0), torch.full((1, 4, 1, 1), -1.0)
    assert gather([first, second, own]).flatten().tolist() == [15 + 100 - 1] * 4
    assert gather([first]) is first
    assert gather([first, torch.full((1, 2, 2, 2), -50.0)]).eq(0).all()


def test_an_expanding_block_adds_what_came_from_below_and_from_its_level():
    block = Expanding(2, 2).eval()
    block.main[-2].weight.data.zero_()
    below, own = torch.rand(1, 4, 3, 3), torch.rand(1, 2, 6, 6)
    assert torch.allclose(block(below, [own]), torch.relu(block.up(below) + own))


def test_every_weight_gets_a_gradient():
    torch.manual_seed(0)
    network = CloudNet(3, width=2)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    # A bias before a normalisation cancels out, so only the weights count.
    assert all(p.grad is not None and bool(p.grad.any()) for n, p in network.named_parameters() if p.ndim > 1)


def test_sizes_that_cannot_be_halved_five_times_are_refused():
    with pytest.raises(ValueError, match="Cloud-Net needs multiples of 32 pixels, got 48 x 64"):
        CloudNet(4, width=2)(torch.zeros(1, 4, 48, 64))


def test_cloudnet_leaves_encoder_weights_aside():
    given = ModelParams(architecture="cloudnet", encoder_weights="imagenet")
    assert build_model(given, BANDS)(torch.zeros(2, 4, 32, 32)).shape == (2, 1, 32, 32)
