"""Networks with norms, and whether folding leaves what they compute."""

from __future__ import annotations

import torch
from torch import nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.folding import folded_norms


def images():
    return torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def with_statistics(model):
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return model.double()


def assert_same_function(model, x):
    def output_and_gradient():
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        (gradient,) = torch.autograd.grad(output.square().sum(), leaf)
        return output.detach(), gradient

    with attack_mode(model):
        plain = output_and_gradient()
        with folded_norms(model, x):
            folded = output_and_gradient()
    torch.testing.assert_close(folded, plain, rtol=1e-9, atol=1e-9)


class Parts(nn.Module):
    """A convolution, a norm, and a second of each, put together by a function."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.norm2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.function = function

    def forward(self, x):
        return self.function(self, x)
