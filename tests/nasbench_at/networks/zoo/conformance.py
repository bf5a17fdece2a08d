"""What every network is held to."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.networks.zoo import create_model


def count_parameters(name: str, *args: Any, **options: Any) -> int:
    """Counts without memory or arithmetic."""
    with torch.device("meta"):
        model = create_model(name, *args, **options)
    return sum(parameter.numel() for parameter in model.parameters())


def randomize_norms(model: nn.Module) -> nn.Module:
    """Gives BatchNorms other statistics and weights than those that they start from."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_()
    return model


def check_network(name: str, **options: Any) -> None:
    """Checks shapes, gradients, folding and repetition of a small network."""
    for input_shape in ((1, 8, 8), (3, 9, 13), (2, 32, 8)):
        model = create_model(name, 7, input_shape, **options)
        images = torch.rand(3, *input_shape)
        logits = model(images)
        assert logits.shape == (3, 7)
        logits.square().sum().backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name
    _check_channels_last(name, **options)
    _check_folding(name, **options)
    torch.manual_seed(1)
    first = create_model(name, **options)
    torch.manual_seed(1)
    again = copy.deepcopy(create_model(name, **options))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(first(images), again(images))


def _check_channels_last(name: str, **options: Any) -> None:
    model = create_model(name, input_shape=(3, 10, 10), **options)
    images = torch.rand(2, 3, 10, 10)
    expected = model(images)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    logits = other(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    logits.square().sum().backward()


def _check_folding(name: str, **options: Any) -> None:
    model = randomize_norms(create_model(name, input_shape=(3, 9, 8), **options)).double()
    images = torch.rand(2, 3, 9, 8, dtype=torch.float64)

    def logits_and_gradient() -> tuple[Tensor, Tensor]:
        leaf = images.clone().requires_grad_()
        logits = model(leaf)
        (gradient,) = torch.autograd.grad(logits.square().sum(), leaf)
        return logits.detach(), gradient

    with attack_mode(model):
        plain = logits_and_gradient()
        with folded_norms(model, images):
            folded = logits_and_gradient()
    torch.testing.assert_close(folded, plain, rtol=1e-8, atol=1e-8)
