from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import AffineMap, folded_norms

from .folding_cases import Parts, assert_same_function, images, with_statistics


class ConvAndReLU(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).relu()


class StandardizedConv(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


class SelfScaledConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x / self.weight.norm())


class ConvWithHook(nn.Conv2d):
    def __init__(self, *args):
        super().__init__(*args)
        self.register_forward_hook(lambda module, args, output: output.relu())


class SamePaddingConv(nn.Conv2d):
    """Treats its input first, which folding leaves as it is."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("conv", "is_folded"),
    [
        (ConvAndReLU, False),
        (StandardizedConv, False),
        (SelfScaledConv, False),
        (ConvWithHook, False),
        (SamePaddingConv, True),
    ],
)
def test_convolution_is_folded_only_if_it_is_one_convolution_of_its_weight(conv, is_folded):
    model = with_statistics(nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4)))
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model[1], nn.Identity if is_folded else AffineMap)
    assert_same_function(model, images())


def reads_values(net, x):
    hidden = net.conv(x)
    return net.norm(hidden) * float(hidden.detach().numpy().mean())


def takes_a_gradient(net, x):
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        hidden = net.conv(point)
        normed = net.norm(hidden).square().sum()
    (slope,) = torch.autograd.grad(normed, hidden)
    return net.norm(net.conv(x)) + slope


class ScalesGradient(torch.autograd.Function):
    """Keeps a tensor for its backward pass, on which no operation is seen."""

    @staticmethod
    def forward(ctx, x, kept):
        ctx.save_for_backward(kept)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].sign(), None


def keeps_for_backward(net, x):
    hidden = net.conv(x)
    return ScalesGradient.apply(net.norm(hidden), hidden)


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.norm(hidden := net.conv(x)) + hidden,
        lambda net, x: net.norm(hidden := net.conv(x)) + 0.1 * hidden.detach(),
        lambda net, x: net.norm(hidden := net.conv(x)) + hidden[:, :1],
        lambda net, x: torch.cat([hidden := net.conv(x), net.norm(hidden)]),
        lambda net, x: net.norm(net.conv(x).relu_()),
        lambda net, x: net.norm(net.conv(x).clone()),
        lambda net, x: net.norm(net.conv(x).transpose(2, 3)),
        lambda net, x: net.norm(net.norm(net.conv(x))),
        lambda net, x: net.norm(hidden := net.conv(x)) + net.norm2(hidden),
        lambda net, x: net.norm(hidden := net.conv(x)) * net.norm(hidden),
        lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv2(x)),
        lambda net, x: net.norm(net.conv(x)) + net.norm(x),
        lambda net, x: net.norm(net.conv(x)) + net.conv(x),
        lambda net, x: net.norm(net.conv(x)) + net.norm2(net.conv(x)),
        lambda net, x: net.norm(net.conv(x)) * net.conv.weight.mean(),
        lambda net, x: net.norm(net.conv(x)) * net.norm.weight.mean(),
        reads_values,
        takes_a_gradient,
        keeps_for_backward,
    ],
)
def test_convolution_whose_output_goes_elsewhere_too_is_not_folded(function):
    model = with_statistics(Parts(function))
    with attack_mode(model), folded_norms(model, images()):
        assert not isinstance(model.norm, nn.Identity)
    assert_same_function(model, images())


@pytest.mark.parametrize(
    "function",
    [
        lambda net, x: net.norm(net.conv(x)).relu_(),
        lambda net, x: net.norm(F.dropout(net.conv(x), training=False)),
        lambda net, x: net.norm2(net.conv2(net.norm(net.conv(x)))),
        lambda net, x: net.norm(net.conv(net.norm(net.conv(x)).relu())),
    ],
)
def test_convolution_whose_output_goes_into_one_norm_is_folded(function):
    model = with_statistics(Parts(function))
    with attack_mode(model), folded_norms(model, images()):
        assert isinstance(model.norm, nn.Identity)
    assert_same_function(model, images())
