"""What the speed is compared with: the same network, attack and training step, written plainly.

Channels first, gradients of every parameter computed in every attack step, TRADES' natural logits
computed anew in each of them, Ada-RK's residual evaluated three times, the reduction's first norm
twice, MBConv's padding and swish apart from their neighbours, and modules summed product by
product, as in the DS-Net authors' code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import ReductionBlock
from blocks.ada_rk import AdaRK
from blocks.mbconv import MBConv, drop_connect
from nasbench_at import Architecture, build_network
from nasbench_at.networks.ds_net import DSNet, RobustModule

__all__ = [
    "PlainAdaRK",
    "PlainMBConv",
    "PlainModule",
    "PlainReduction",
    "PlainTraining",
    "plain_attack_step",
    "plain_network",
]


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


class PlainMBConv(nn.Module):
    """The inverted bottleneck with its padding and its swish as operations of their own."""

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.expand, self.norm1 = block.expand, block.norm1
        self.depthwise, self.norm2 = block.depthwise, block.norm2
        self.squeeze_excite, self.project = block.squeeze_excite, block.project
        self.norm3, self.norm, self.drop_rate = block.norm3, block.norm, block.drop_rate
        self.padding = int(self.depthwise.padding[0])
        self.depthwise.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.norm1(self.expand(x))
        hidden = F.pad(hidden * hidden.sigmoid(), [self.padding] * 4)
        hidden = self.norm2(self.depthwise(hidden))
        branch = self.norm3(self.project(self.squeeze_excite(hidden * hidden.sigmoid())))
        if self.training:
            branch = drop_connect(branch, self.drop_rate)
        output: Tensor = self.norm(x + branch)
        return output


class PlainReduction(nn.Module):
    """The reduction with its first norm and activation evaluated for each of its branches."""

    def __init__(self, block: ReductionBlock) -> None:
        super().__init__()
        self.residual, self.shortcut, self.norm = block.residual, block.shortcut, block.norm

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, o, H/2, W/2)``."""
        shortcut = self.shortcut(self.residual.activate_input(x))
        output: Tensor = self.norm(self.residual(x) + shortcut)
        return output


class PlainModule(RobustModule):
    """The weighted sum of blocks, each product and each sum by itself, from zero."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` and weights ``(max blocks,)`` to ``(N, C, H, W)``."""
        blocks = zip(self.blocks, self.columns, strict=True)
        return sum((block(x) * weights[column] for block, column in blocks), start=torch.zeros(()))


PLAIN = {AdaRK: PlainAdaRK, MBConv: PlainMBConv}


def _as_it_is(block: nn.Module) -> nn.Module:
    return block


def plain_network(architecture: Architecture) -> DSNet:
    """Builds the network with these parts, channels first; the state_dict keeps its keys."""
    network = build_network(architecture)
    for i, stage in enumerate(network.stages):
        if isinstance(stage, RobustModule):
            blocks = [PLAIN.get(type(block), _as_it_is)(block) for block in stage.blocks]
            network.stages[i] = PlainModule(blocks, stage.columns, stage.active)
        elif isinstance(stage, ReductionBlock):
            network.stages[i] = PlainReduction(stage)
    return network


def plain_attack_step(
    network: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    *,
    eps: float,
    step_size: float,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Tensor:
    """One PGD step on a loss, by ``loss.backward()``."""
    x_adv = x_adv.clone().requires_grad_()
    network.zero_grad()
    loss(network(x_adv), y).backward()
    assert x_adv.grad is not None
    stepped = x_adv.detach() + step_size * x_adv.grad.sign()
    return torch.min(torch.max(stepped, x - eps), x + eps).clamp(0, 1)


class PlainTraining:
    """Adversarial training as the authors' loop has it: their attack, loss and optimizers.

    Args:
        network: A plain network.
        beta: Weight of TRADES' robust term; None for training on the cross entropy of PGD's images.
    """

    eps, step_size, steps, noise = 0.031, 0.007, 10, 0.001

    def __init__(self, network: DSNet, *, beta: float | None) -> None:
        self.network, self.beta = network, beta
        weights, logits = network.block_parameters(), network.attention_parameters()
        self.optimizers = (
            torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4),
            torch.optim.Adam(logits, lr=1e-3, betas=(0.5, 0.999), weight_decay=1e-3),
        )

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """Attacks, then takes one step of both optimizers."""
        x_adv = self._attack(x, y)
        self.network.train()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        logits = self.network(x_adv)
        if self.beta is None:
            loss = F.cross_entropy(logits, y)
        else:
            natural = self.network(x)
            loss = F.cross_entropy(natural, y) + self.beta / len(x) * _divergence(logits, natural)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()

    def _attack(self, x: Tensor, y: Tensor) -> Tensor:
        self.network.eval()
        if self.beta is None:
            x_adv = (x + torch.empty_like(x).uniform_(-self.eps, self.eps)).clamp(0, 1)
        else:
            x_adv = x + 0.001 * torch.randn_like(x)
        for _ in range(self.steps):
            x_adv = x_adv.requires_grad_()
            self.network.zero_grad()
            logits = self.network(x_adv)
            if self.beta is None:
                loss = F.cross_entropy(logits, y)
            else:
                loss = _divergence(logits, self.network(x))
            loss.backward()
            assert x_adv.grad is not None
            stepped = x_adv.detach() + self.step_size * x_adv.grad.sign()
            stepped = stepped + self.noise * torch.randn_like(x)
            x_adv = torch.min(torch.max(stepped, x - self.eps), x + self.eps).clamp(0, 1)
        return x_adv


def _divergence(logits: Tensor, natural: Tensor) -> Tensor:
    """KL(natural || adversarial), summed over the batch."""
    return F.kl_div(logits.log_softmax(dim=1), natural.softmax(dim=1), reduction="sum")
