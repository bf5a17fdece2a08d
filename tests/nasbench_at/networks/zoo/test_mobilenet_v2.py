from __future__ import annotations

import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops import Conv2dNormActivation

from nasbench_at.networks.zoo import create_model
from tests.nasbench_at.networks.zoo.conformance import (
    check_network,
    count_parameters,
    randomize_norms,
)

# Expansion, channels, number of blocks and stride, from kuangliu/pytorch-cifar.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def test_parameters():
    assert count_parameters("mobilenet_v2") == 2_296_922
    assert count_parameters("tiny_mobilenet_v2", 10, (1, 8, 8)) < 300_000


def test_tiny_network_is_a_network():
    check_network("tiny_mobilenet_v2")


def take_weights(theirs, ours):
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    return theirs.double().eval()


def torchvisions_residual(in_channels, out_channels, expansion, stride):
    """Its inverted residual without the shortcut, and with ReLU in place of ReLU6."""
    residual = InvertedResidual(in_channels, out_channels, stride, expansion).conv
    if expansion == 1:  # torchvision leaves out what does not expand
        residual.insert(0, Conv2dNormActivation(in_channels, in_channels, 1))
    for parent in residual:
        if isinstance(parent, Conv2dNormActivation):
            parent[2] = nn.ReLU()
    return residual


def test_mobilenet_v2_is_made_of_torchvisions_blocks():
    ours = randomize_norms(create_model("mobilenet_v2")).double().eval()
    blocks = iter(ours.blocks)
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        x = take_weights(Conv2dNormActivation(3, 32), ours.stem)(images)
        width = 32
        for expansion, channels, num_blocks, first_stride in STAGES:
            for i in range(num_blocks):
                block = next(blocks)
                stride = first_stride if i == 0 else 1
                residual = torchvisions_residual(width, channels, expansion, stride)
                y = take_weights(residual, block.residual)(x)
                if stride == 1 and width == channels:
                    y += x
                elif stride == 1:
                    shortcut = Conv2dNormActivation(width, channels, 1, activation_layer=None)
                    y += take_weights(shortcut, block.shortcut)(x)
                x, width = y, channels
        assert next(blocks, None) is None
        x = take_weights(Conv2dNormActivation(320, 1280, 1), ours.last)(x)
        torch.testing.assert_close(ours(images), ours.head(x.mean(dim=(2, 3))))
