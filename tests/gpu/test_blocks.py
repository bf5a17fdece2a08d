"""Every registered block on a GPU against the CPU, and the conformance kit there."""

from __future__ import annotations

import copy

import pytest
import torch

from blocks import create_block, list_blocks
from blocks.testing import check_block

pytestmark = pytest.mark.gpu

BLOCKS = pytest.mark.parametrize("name", list_blocks())


def distance(found, expected):
    return float((found.cpu() - expected).norm() / expected.norm().clamp(min=1e-12))


@BLOCKS
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_output_and_gradients_are_the_cpu_s(device, exact, same_draws, name, mode):
    # In float64: in float32 a ReLU's input may turn its sign, and its gradient with it.
    block = create_block(name, 8).double().train(mode)
    x, direction = torch.rand(2, 4, 8, 6, 6, dtype=torch.float64)
    found = []
    for place in (torch.device("cpu"), device):
        torch.manual_seed(0)
        twin, leaf = copy.deepcopy(block).to(place), x.clone().to(place).requires_grad_()
        output = twin(leaf)
        (output * direction.to(place)).sum().backward()
        found.append([output.detach(), leaf.grad, *(p.grad for p in twin.parameters())])
    names = ["output", "input", *(n for n, _ in block.named_parameters())]
    scale = max(float(gradient.norm()) for gradient in found[0][1:])
    for what, expected, got in zip(names, *found, strict=True):
        # A gradient that is zero but for rounding has no direction.
        assert float((got.cpu() - expected).norm()) < 1e-8 * max(scale, 1.0), what


@BLOCKS
def test_float32_output_is_nearly_the_cpu_s(device, exact, same_draws, name):
    block, x = create_block(name, 8).eval(), torch.rand(4, 8, 6, 6)
    with torch.no_grad():
        expected = block(x)
        assert distance(block.to(device)(x.to(device)), expected) < 1e-4


@BLOCKS
def test_block_passes_the_conformance_kit(device, exact, name):
    with torch.device(device):
        check_block(name)
