from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_at.networks.zoo import create_model
from nasbench_at.networks.zoo.implicit_euler import Transition


def count(net: nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in net.parameters() if p.requires_grad or not trainable)


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({}, 17_480_618),
        ({"iterations": 2}, 17_480_618),
        ({"authors": True}, 22_414_762),
        ({"authors": True, "iterations": 2}, 27_348_906),
    ],
    ids=str,
)
def test_parameters_of_the_bottleneck_network(options, total):
    with torch.device("meta"):
        net = create_model("ie_resnet50", **options)
    assert count(net) == total
    assert count(net, trainable=True) == 17_480_618


def test_parameters_of_the_wide_network():
    with torch.device("meta"):
        net = create_model("ie_wrn_34_10")
    assert count(net) == count(net, trainable=True) == 48_242_314


@pytest.mark.parametrize(
    ("name", "layout"),
    [("ie_resnet50", "tii tiii tiiiii tii"), ("ie_wrn_34_10", "tiiii tiiii tiiii")],
)
def test_every_stage_is_a_transition_and_implicit_blocks(name, layout):
    with torch.device("meta"):
        net = create_model(name)
    kinds = "".join("t" if isinstance(block, Transition) else "i" for block in net.blocks)
    assert kinds == layout.replace(" ", "")


def normalise(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return F.relu(F.group_norm(x, 1, norm.weight, norm.bias))


def f(part: nn.Module, x: Tensor, last: nn.Module) -> Tensor:
    """A bottleneck residual, its third norm and convolution those of ``last``."""
    stride = part.conv2.stride
    x = F.conv2d(normalise(part.norm1, x), part.conv1.weight)
    x = F.conv2d(normalise(part.norm2, x), part.conv2.weight, stride=stride, padding=1)
    return F.conv2d(normalise(last.norm3, x), last.conv3.weight)


def reference(net: nn.Module, x: Tensor, *, iterations: int, authors: bool) -> Tensor:
    """The tiny network's logits by an inner loop of automatic differentiation."""
    x = normalise(net.stem_norm, F.conv2d(x, net.stem.weight, padding=1))
    for index, block in enumerate(net.blocks):
        main = block.residual
        t = f(main, x, main)
        if index % 2 == 0:
            stride = block.conv.stride
            hidden = normalise(block.norm, x)
            x = t + F.conv2d(hidden, block.conv.weight, stride=stride, padding=1)
            continue
        y = x + t
        for i in range(iterations):
            last = block.copies[i] if authors else main
            wrong = authors and index == len(net.blocks) - 1
            point = y.detach().requires_grad_()
            slope = f(main, point, last)
            gap = point - x.detach() + (slope if wrong else -slope)
            (gradient,) = torch.autograd.grad(gap.square().sum(), point)
            y = y - 0.1 * gradient
        x = y
    x = normalise(net.norm, x)
    return F.linear(x.mean(dim=(2, 3)), net.fc.weight, net.fc.bias)


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("authors", [False, True])
def test_network_equals_an_independent_one_in_logits_and_gradients(iterations, authors):
    net = create_model("tiny_ie_resnet", iterations=iterations, authors=authors).double()
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    ours, theirs = net(x), reference(net, x, iterations=iterations, authors=authors)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(net(x), theirs, rtol=0, atol=1e-10)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    weights = torch.randn(2, 10, dtype=torch.float64)
    mine = torch.autograd.grad((ours * weights).sum(), trained)
    expected = torch.autograd.grad((theirs * weights).sum(), trained)
    torch.testing.assert_close(mine, expected, rtol=1e-8, atol=1e-10)


def test_wide_network_trains_every_parameter():
    net = create_model("ie_wrn_34_10", input_shape=(1, 8, 8))
    net(torch.rand(1, 1, 8, 8)).logsumexp(dim=1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize("name", ["ie_resnet50", "tiny_ie_resnet", "ie_wrn_34_10"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"step": -0.1}, r"step must be positive and finite, got -0\.1"),
    ],
)
def test_option_outside_its_range_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)
