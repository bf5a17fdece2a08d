from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from blocks.layers import (
    PointwiseConv2d,
    PreActivation,
    SmoothReLU,
    conv1x1,
    conv3x3,
    make_activation,
    make_norm,
    norm_with_updates,
    spatial_mean,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_norm_with_updates_equals_repeated_calls(updates):
    ours = nn.BatchNorm2d(3).double()
    theirs = copy.deepcopy(ours)
    for _ in range(2):
        x = torch.randn(4, 3, 5, 5, dtype=torch.float64) * 3 + 1
        output = norm_with_updates(ours, x, updates)
        for _ in range(updates):
            expected = theirs(x)
        torch.testing.assert_close(output, expected)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 2 * updates
    assert ours.momentum == 0.1


def test_norm_with_updates_changes_nothing_in_eval():
    norm = nn.BatchNorm2d(3).eval()
    before = copy.deepcopy(norm.state_dict())
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(norm_with_updates(norm, x, 2), norm(x))
    assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())


@pytest.mark.parametrize("name", ["layer", "none"])
def test_norm_with_updates_calls_a_norm_without_statistics_once(name):
    norm, calls = make_norm(name, 4), []
    norm.register_forward_hook(lambda *_: calls.append(1))
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(norm_with_updates(norm, x, 2), make_norm(name, 4)(x))
    assert len(calls) == 1


def test_norm_with_updates_accepts_a_batch_norm_without_running_statistics():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(norm_with_updates(norm, x, 2), nn.BatchNorm2d(3)(x))
    assert norm.num_batches_tracked is None


def test_norm_with_updates_restores_the_momentum_after_an_error():
    norm = nn.BatchNorm2d(3)
    with pytest.raises(RuntimeError):
        norm_with_updates(norm, torch.randn(2, 5, 4, 4), 2)
    assert norm.momentum == 0.1


def test_layer_norm_normalises_channels_and_space_of_each_image():
    bright_channel = torch.tensor([2.0, 2.0, 2.0, 50.0]).view(1, 4, 1, 1)
    output = make_norm("layer", 4)(torch.randn(3, 4, 5, 5) * 7 + bright_channel)
    torch.testing.assert_close(output.mean(dim=(1, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.var(dim=(1, 2, 3)), torch.ones(3), rtol=0.02, atol=0)
    assert (output[:, 3].mean(dim=(1, 2)) > 1).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", nn.ReLU),
        ("silu", nn.SiLU),
        ("softplus", nn.Softplus),
        ("elu", nn.ELU),
        ("smooth_relu", SmoothReLU),
    ],
)
def test_activation_by_name(name, expected):
    assert isinstance(make_activation(name), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_spatial_mean_and_its_gradient_are_those_of_mean(memory_format, training):
    x = torch.randn(2, 5, 4, 3).contiguous(memory_format=memory_format).requires_grad_()
    weights = torch.randn(2, 5)
    output, expected = spatial_mean(x, training=training), x.mean(dim=(2, 3))
    assert torch.equal(output, expected)
    (gradient,) = torch.autograd.grad((output * weights).sum(), x)
    (expected,) = torch.autograd.grad((expected * weights).sum(), x)
    assert torch.equal(gradient, expected)
    layout = torch.contiguous_format if training else memory_format
    assert gradient.is_contiguous(memory_format=layout)


def test_spatial_mean_can_be_mapped_over_batches():
    batches = torch.randn(3, 2, 5, 4, 4)
    mapped = torch.func.vmap(lambda x: spatial_mean(x, training=False))(batches)
    torch.testing.assert_close(mapped, batches.mean(dim=(3, 4)))


@pytest.mark.parametrize("in_channels", [3, 7, 8, 12])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution_equals_conv2d(in_channels, stride, memory_format):
    ours = PointwiseConv2d(in_channels, 5, 1, stride=stride, bias=True)
    theirs = nn.Conv2d(in_channels, 5, 1, stride=stride)
    theirs.load_state_dict(ours.state_dict())
    data = torch.randn(2, in_channels, 7, 8)
    # The reference stays in the default format, where PyTorch's kernel is sound.
    inputs = [
        data.clone(memory_format=memory_format).requires_grad_(),
        data.clone().requires_grad_(),
    ]
    outputs = [ours(inputs[0]), theirs(inputs[1])]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    for output in outputs:
        (output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    for mine, reference in (
        (inputs[0], inputs[1]),
        (ours.weight, theirs.weight),
        (ours.bias, theirs.bias),
    ):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-4, atol=1e-5)


STEP = """
import torch
from blocks import ReductionBlock
torch.manual_seed(0)
for channels in (4, 5, 6):
    block = ReductionBlock(channels, 2 * channels).to(memory_format=torch.channels_last)
    for _ in range(20):
        x = torch.rand(8, channels, 8, 8).to(memory_format=torch.channels_last)
        block(x).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())
"""


def test_training_a_narrow_reduction_in_channels_last_does_not_corrupt_the_heap():
    # In a process of its own, since what it guards against ends the process.
    done = subprocess.run(
        [sys.executable, "-c", STEP], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_convolutions_have_the_kernels_and_biases_they_say():
    pointwise = conv1x1(4, 6, stride=2)
    spatial = conv3x3(4, 6, groups=2, bias=True)
    assert (pointwise.kernel_size, pointwise.stride, pointwise.bias) == ((1, 1), (2, 2), None)
    assert spatial.weight.shape == (6, 2, 3, 3)
    assert spatial.bias is not None
    assert spatial(torch.rand(1, 4, 5, 7)).shape == (1, 6, 5, 7)


def test_pre_activation_is_its_two_halves():
    f = PreActivation(3, 5, stride=2, activation="relu", norm="batch").eval()
    x = torch.randn(2, 3, 6, 6)
    output = f(x)
    assert output.shape == (2, 5, 3, 3)
    torch.testing.assert_close(output, f.convolve(f.activate_input(x)))


def test_pre_activation_moves_both_norms_as_often_as_told():
    f = PreActivation(3, 5, activation="relu", norm="batch")
    f(torch.randn(2, 3, 6, 6), updates=2)
    assert f.norm1.num_batches_tracked == f.norm2.num_batches_tracked == 2


def test_smooth_relu_is_the_published_formula():
    activation = make_activation("smooth_relu").double()
    assert activation.beta_raw.item() == 20
    x = torch.tensor([-3.0, -1e-3, 0.0, 1e-3, 0.5, 4.0], dtype=torch.float64, requires_grad=True)
    beta = 400.0
    expected = [v - math.log(beta * v + 1) / beta if v > 0 else 0.0 for v in x.tolist()]
    output = activation(x)
    torch.testing.assert_close(output, torch.tensor(expected, dtype=torch.float64))
    output.sum().backward()
    slopes = [beta * v / (1 + beta * v) if v > 0 else 0.0 for v in x.tolist()]
    torch.testing.assert_close(x.grad, torch.tensor(slopes, dtype=torch.float64))
    assert activation.beta_raw.grad > 0


def test_channel_layer_norm_normalises_the_channels_of_each_pixel():
    norm = make_norm("channel_layer", 4)
    output = norm(torch.randn(3, 4, 5, 5) * 7 + 2)
    torch.testing.assert_close(output.mean(dim=1), torch.zeros(3, 5, 5), rtol=0, atol=1e-5)
    deviation = output.var(dim=1, correction=0)
    torch.testing.assert_close(deviation, torch.ones(3, 5, 5), rtol=0.01, atol=0)
    assert norm.weight.shape == norm.bias.shape == (4,)
