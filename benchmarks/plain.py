"""What the speed is compared with: the same network and attack, written plainly.

Channels first, gradients of every parameter computed in every attack step, and Ada-RK's residual
evaluated three times, as in the DS-Net authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.ada_rk import AdaRK
from nasbench_at import Architecture, build_network

__all__ = ["PlainAdaRK", "plain_attack_step", "plain_network"]


class PlainAdaRK(nn.Module):
    """The Runge-Kutta step as its formula reads, f evaluated wherever it stands."""

    def __init__(self, block: AdaRK) -> None:
        super().__init__()
        self.a21, self.b10 = block.a21, block.b10
        self.residual, self.norm = block.residual, block.norm

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        alpha, beta = self.a21.sigmoid(), self.b10.sigmoid()
        b20 = 1 - 0.5 / beta - alpha * beta
        x1 = x + beta * self.residual(x)
        total = (1 - alpha) * x + b20 * self.residual(x) + alpha * x1
        output: Tensor = self.norm(total + 0.5 / beta * self.residual(x1))
        return output


def plain_network(architecture: Architecture) -> nn.Module:
    """Builds the network with the plain Ada-RK, channels first."""
    network = build_network(architecture)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AdaRK):
                setattr(module, name, PlainAdaRK(child))
    return network


def plain_attack_step(
    network: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, *, eps: float, step_size: float
) -> Tensor:
    """One PGD step on the cross entropy, by ``loss.backward()``."""
    x_adv = x_adv.clone().requires_grad_()
    network.zero_grad()
    F.cross_entropy(network(x_adv), y).backward()
    assert x_adv.grad is not None
    stepped = x_adv.detach() + step_size * x_adv.grad.sign()
    return torch.min(torch.max(stepped, x - eps), x + eps).clamp(0, 1)
