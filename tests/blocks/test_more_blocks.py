"""What the blocks beyond the authors' compute, each against an independent formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock

from blocks import create_block
from blocks.implicit_euler import implicit_euler


class Times(nn.Module):
    """A linear map, in the place of a block's residual."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def randomise(block: nn.Module) -> nn.Module:
    """Float64, eval mode, and norms that are not the identity."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return block.double().eval()


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        # R doubles: R(R(2)) = 8.
        ("ssp2", "block", (2 + 8) / 2),
        # x1 = 4, x2 = 3/4 * 2 + 1/4 * R(4) = 3.5, y = 1/3 * 2 + 2/3 * R(3.5).
        ("ssp3", "block", 2 / 3 + 14 / 3),
        # m = 2 + 1/2 * 4 = 4, y = 4 + f(4).
        ("mid_rk2", "residual", 12.0),
    ],
)
def test_runge_kutta_step_on_a_linear_map(name, part, expected):
    block = create_block(name, 3)
    setattr(block, part, Times(2.0))
    output = block(torch.full((1, 3, 2, 2), 2.0))
    torch.testing.assert_close(output, torch.full((1, 3, 2, 2), expected))


@pytest.mark.parametrize(("name", "calls"), [("ssp2", 2), ("ssp3", 3), ("mid_rk2", 2)])
def test_runge_kutta_stages_share_one_residual(name, calls):
    block = create_block(name, 4)
    count = []
    f = block.residual if name == "mid_rk2" else block.block.residual
    f.conv1.register_forward_hook(lambda *_: count.append(1))
    block(torch.rand(2, 4, 5, 5))
    assert len(count) == calls


def objective(block: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """‖y − x − f(y)‖², f written out."""
    f = block.residual
    hidden = f.conv1(F.relu(F.group_norm(y, 1, f.norm1.weight, f.norm1.bias)))
    slope = f.conv2(F.relu(F.group_norm(hidden, 1, f.norm2.weight, f.norm2.bias)))
    return (y - x - slope).square().sum()


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("grad", [True, False])
def test_implicit_euler_descends_the_squared_gap(iterations, grad):
    block = randomise(create_block("implicit_euler", 4, iterations=iterations, step=0.07))
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    y = (x + block.residual(x)).detach()
    for _ in range(iterations):
        y.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(block, x, y), y)
        y = (y - 0.07 * gradient).detach()
    with torch.set_grad_enabled(grad):
        output = block(x)
    assert output.requires_grad == grad
    torch.testing.assert_close(output, y, rtol=0, atol=1e-12)


def test_implicit_euler_reaches_the_implicit_solution():
    block = randomise(create_block("implicit_euler", 3, iterations=400, step=0.05))
    with torch.no_grad():
        for parameter in (block.residual.conv2.weight, block.residual.conv2.bias):
            parameter.mul_(0.2)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert objective(block, x, x + block.residual(x)) > 1e-3
    assert objective(block, x, block(x)) < 1e-12


def test_implicit_euler_passes_gradients_through_its_starting_point_alone():
    block = randomise(create_block("implicit_euler", 4, iterations=2))
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    wanted = [x, *block.parameters()]
    ours = torch.autograd.grad((block(x) * weights).sum(), wanted)
    start = torch.autograd.grad(((x + block.residual(x)) * weights).sum(), wanted)
    torch.testing.assert_close(ours, start, rtol=0, atol=0)
    assert all(gradient.abs().sum() > 0 for gradient in ours)


def test_implicit_euler_leaves_gradients_alone():
    block = create_block("implicit_euler", 4)
    x = torch.rand(2, 4, 5, 5, requires_grad=True)
    block(x)
    assert x.grad is None
    assert all(parameter.grad is None for parameter in block.parameters())


def test_implicit_step_takes_a_solver_and_a_sign_of_its_own():
    x = torch.full((1, 1, 1, 1), 1.0)
    # y = 3; gap = 3 - 1 + 5 * 3 = 17; half the gradient is 17 + 5 * 17.
    output = implicit_euler(x, Times(2.0), [Times(5.0)], step=0.01, sign=-1.0)
    torch.testing.assert_close(output, torch.full((1, 1, 1, 1), 3 - 0.02 * 102))


def test_bottleneck_normalises_the_activated_sum():
    block = randomise(create_block("bottleneck", 8))
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    hidden = block.norm1(F.conv2d(x, block.reduce.weight)).relu()
    hidden = block.norm2(F.conv2d(hidden, block.conv.weight, padding=1)).relu()
    branch = block.norm3(F.conv2d(hidden, block.expand.weight))
    torch.testing.assert_close(block(x), block.norm((x + branch).relu()))
    assert hidden.shape[1] == 2


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_separable_convolution_is_two_activated_rounds(kernel_size):
    block = randomise(create_block("separable_conv", 4, kernel_size=kernel_size))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    hidden = x
    for depthwise, pointwise, norm in (
        (block.depthwise1, block.pointwise1, block.norm1),
        (block.depthwise2, block.pointwise2, block.norm2),
    ):
        hidden = F.conv2d(hidden.relu(), depthwise.weight, padding=kernel_size // 2, groups=4)
        hidden = norm(F.conv2d(hidden, pointwise.weight))
    torch.testing.assert_close(block(x), hidden)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_plain_convolution_is_normalised_and_activated(kernel_size):
    block = randomise(create_block("plain_conv", 4, kernel_size=kernel_size))
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    convolved = F.conv2d(x, block.conv.weight, padding=kernel_size // 2)
    torch.testing.assert_close(block(x), block.norm(convolved).relu())


def test_convnext_is_torchvisions():
    ours = create_block("convnext", 6, layer_scale=0.5).double()
    theirs = CNBlock(6, layer_scale=0.5, stochastic_depth_prob=0.0).double()
    nn.init.uniform_(ours.norm.weight)
    nn.init.normal_(ours.norm.bias)
    for index, part in ((0, ours.depthwise), (2, ours.norm), (3, ours.expand), (5, ours.project)):
        layer = theirs.block[index]
        layer.weight.data = part.weight.data.view(layer.weight.shape)
        layer.bias.data = part.bias.data
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_convnext_starts_near_the_identity():
    x = torch.randn(2, 4, 5, 5)
    block = create_block("convnext", 4)
    torch.testing.assert_close(block(x), x, rtol=0, atol=1e-5)
    assert not torch.equal(block(x), x)
