from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from blocks import ReductionBlock, block_info
from nasbench_at.networks.zoo import create_model


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ada_rk_net_62", {}, 23_614_926),
        ("ada_rk_net_62", {"groups": ("ada_rk",) * 3}, 23_614_944),
        ("resnet_62", {}, 23_614_890),
        ("ssp2_net_62", {}, 23_614_890),
        ("ssp3_net_62", {}, 23_614_890),
        ("ada_rk_net_62", {"blocks_per_group": 16, "channels": 61}, 23_608_660),
    ],
    ids=str,
)
def test_parameters_are_the_published_ones(name, options, expected):
    with torch.device("meta"):
        assert count(create_model(name, **options)) == expected


def test_residual_network_has_62_layers_with_weights():
    with torch.device("meta"):
        net = create_model("resnet_62")
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in net.modules()) == 62


def test_groups_stand_in_the_order_named_with_reductions_between():
    groups = ("residual", "mid_rk2", "ada_rk")
    net = create_model("tiny_ada_rk_net", groups=groups, blocks_per_group=2, channels=4)
    first, second, third = (block_info(name).build for name in groups)
    assert [type(module) for module in net] == [
        nn.Conv2d,
        *[first] * 2,
        ReductionBlock,
        *[second] * 2,
        ReductionBlock,
        *[third] * 2,
        nn.AdaptiveAvgPool2d,
        nn.Flatten,
        nn.Linear,
    ]
    assert net[-1].in_features == 16


def test_weights_start_as_the_authors_draw_them():
    net = create_model("resnet_62", channels=8)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            bound = math.sqrt(6 / ((1 + 5 * 9**2) * fan_in))
            assert 0.8 * bound < module.weight.abs().max() <= bound * (1 + 1e-6)
            if module.bias is not None:
                assert 0.3 < module.bias.abs().max() * math.sqrt(fan_in) <= 1 + 1e-6
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    weights = torch.cat([norm.weight for norm in norms])
    assert 0 <= weights.min() < 0.05
    assert 0.95 < weights.max() <= 1
    assert all((norm.bias == 0).all() for norm in norms)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ("residual", "ssp22")}, "unknown block 'ssp22'; did you mean 'ssp2'"),
        ({"groups": ()}, "groups must name at least one block, got none"),
        ({"blocks_per_group": 0}, "blocks_per_group must be at least 1, got 0"),
    ],
)
def test_option_outside_its_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("tiny_ada_rk_net", **options)
