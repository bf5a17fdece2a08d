"""Small networks that attacks fuse, and what of them a program computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms
from nasbench_at.attacks.fusion import fused, network


class Replayable(nn.Module):
    """Says that it is the same operations each time, whether that is true or not."""

    is_replayable = True

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **modules: nn.Module):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def draw_statistics(model: nn.Module) -> nn.Module:
    """Gives norms what training would: with none, every mistake about them looks right."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return model.eval()


def images(num_images: int = 4, *, channels_last: bool = False) -> Tensor:
    x = torch.rand(num_images, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def logits_and_gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    mixture = torch.rand(logits.shape, generator=torch.Generator().manual_seed(2)).to(logits)
    (gradient,) = torch.autograd.grad((logits * mixture).sum(), leaf)
    return logits.detach(), gradient


def is_fused(model: nn.Module, x: Tensor) -> bool:
    with attack_mode(model), folded_norms(model, x):
        return fused(model, x) is not model


def assert_same_function(model: nn.Module, x: Tensor, *others: Tensor) -> None:
    """Compares what attacks on `x` call with the model in float64, on `x` and on other images."""
    exact = copy.deepcopy(model).double()
    with attack_mode(model), folded_norms(model, x):
        replacement = fused(model, x)
        assert replacement is not model
        for batch in (x, *others):
            found = logits_and_gradient(replacement, batch)
            expected = logits_and_gradient(exact, batch.double())
            for own, best in zip(found, expected, strict=True):
                torch.testing.assert_close(own, best.float(), rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def no_network_is_too_small(monkeypatch):
    monkeypatch.setattr(network, "_MIN_SIZE", 0)
