"""Every registered block, with every option, through the conformance kit."""

from __future__ import annotations

import pytest

from blocks import list_blocks
from blocks.layers import ACTIVATIONS, NORMS
from blocks.testing import check_block

OPTIONS = [
    ("mbconv", {"expansion": 1}),
    ("mbconv", {"expansion": 6}),
    ("mbconv", {"kernel_size": 1}),
    ("mbconv", {"kernel_size": 5}),
    ("mbconv", {"se_ratio": 0.01}),
    ("mbconv", {"drop_connect": 0.0}),
    ("mbconv", {"drop_connect": 0.9}),
    ("dense", {"num_layers": 1}),
    ("dense", {"num_layers": 4, "bottleneck": 1}),
    ("dense", {"growth": 3}),
    ("ada_rk", {"separate_norms": True}),
    ("ada_rk", {"authors_updates": False}),
    ("ada_rk", {"separate_norms": True, "norm": "none"}),
    ("resnext", {"cardinality": 2, "base_width": 32}),
    ("resnext", {"cardinality": 1, "base_width": 128}),
    ("implicit_euler", {"iterations": 3, "step": 0.05}),
    ("bottleneck", {"reduction": 1}),
    ("bottleneck", {"reduction": 16}),
    ("separable_conv", {"kernel_size": 1}),
    ("separable_conv", {"kernel_size": 5}),
    ("plain_conv", {"kernel_size": 1}),
    ("convnext", {"expansion": 1, "layer_scale": 1.0}),
]


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize("channels", [2, 7, 8])
def test_block_conforms_at_every_width(name, channels):
    check_block(name, channels=channels)


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize("resolution", [1, 2, 5])
def test_block_conforms_at_every_resolution(name, resolution):
    check_block(name, resolution=resolution)


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_block_conforms_with_every_activation(name, activation):
    check_block(name, activation=activation)


@pytest.mark.parametrize("name", list_blocks())
@pytest.mark.parametrize("norm", NORMS)
def test_block_conforms_with_every_norm(name, norm):
    check_block(name, norm=norm)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_block_conforms_with_its_own_options(name, options):
    check_block(name, **options)
