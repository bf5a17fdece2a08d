from __future__ import annotations

import pytest
import torch
from torch import nn

from blocks import block_info
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.zoo import create_model

V1 = ("residual", "mbconv", "dense", "ada_rk")


def count(net: DSNet) -> int:
    return sum(parameter.numel() for parameter in net.block_parameters())


def classes_of(net: DSNet) -> list[list[type[nn.Module]]]:
    return [[type(b) for b in m.blocks] for m in net.stages if isinstance(m, RobustModule)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ds_net_4", 20_780_245),
        ("ds_net_6", 46_353_435),
        ("ds_net_4_v2", 24_035_815),
        ("ds_net_6_v2", 53_616_205),
        ("ds_net_4_fixed", 20_780_245),
        ("ds_net_4_same_residual", 12_141_890),
        ("ds_net_4_same_mbconv", 3_843_990),
        ("ds_net_4_same_dense", 54_993_090),
        ("ds_net_4_same_ada_rk", 12_142_010),
    ],
)
def test_parameters_without_logits_are_the_published_ones(name, expected):
    net = create_model(name)
    assert count(net) == expected
    assert net.attention.logits.shape == (15, 4)


@pytest.mark.parametrize("name", ["fixed", *(f"same_{block}" for block in V1)])
def test_fixed_networks_weigh_every_block_a_quarter_and_learn_no_weights(name):
    net = create_model(f"ds_net_4_{name}", init_channels=2)
    assert torch.equal(net.attention.weights(), torch.full((15, 4), 0.25))
    assert not any(parameter.requires_grad for parameter in net.attention_parameters())


@pytest.mark.parametrize("block", V1)
def test_same_block_networks_hold_four_blocks_of_one_kind(block):
    net = create_model(f"ds_net_4_same_{block}", init_channels=2)
    assert classes_of(net) == [[block_info(block).build] * 4] * 15
    module = net.stages[0]
    assert len({id(parameter) for parameter in module.parameters()}) == 4 * len(
        list(module.blocks[0].parameters())
    )


def test_second_version_has_the_authors_second_block_set():
    net = create_model("ds_net_4_v2", init_channels=2)
    names = ("residual", "mbconv", "resnext", "dla_tree")
    assert classes_of(net) == [[block_info(name).build for name in names]] * 15


def test_learned_weights_take_their_initialisation_from_the_options():
    assert create_model("tiny_ds_net").attention.logits.std() > 0.1
    net = create_model("tiny_ds_net", recipe="authors")
    assert 0 < net.attention.logits.abs().max() < 0.01
    net = create_model("tiny_ds_net", attention_init="equal")
    assert torch.equal(net.attention.weights(), torch.full((3, 4), 0.25))
    assert net.attention.logits.requires_grad


def test_option_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"init must be one of normal, .* got 'odd'"):
        create_model("tiny_ds_net", attention_init="odd")
    with pytest.raises(ValueError, match=r"init_channels must be a whole .* got 0"):
        create_model("ds_net_4", init_channels=0)
