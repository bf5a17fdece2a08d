"""Adversarial weight perturbation: the loss is taken where the weights are worst nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["perturbed_weights"]


@contextmanager
def perturbed_weights(
    network: nn.Module, loss: Callable[[], Tensor], gamma: float
) -> Iterator[None]:
    """Moves every weight tensor up the gradient of a loss, and back at the end of the block.

    A tensor w with gradient g moves by gamma · ‖w‖ / ‖g‖ · g. Only tensors with at least two
    dimensions move, as in the official code: not the norms' parameters and not the biases. The
    forward pass of ``loss`` is told not to update running statistics.

    Args:
        network: The network; in training mode.
        loss: Computes the loss to climb, from the network's present weights.
        gamma: Size of the step relative to each tensor, such as 0.005; at 0 nothing moves.

    Reference:
        Wu et al., "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020.
    """
    if gamma == 0:
        yield
        return
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    with _frozen_statistics(network):
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    # Kept rather than computed back: subtracting what was added would leave rounding errors.
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                weight.add_(gradient * (gamma * weight.norm() / gradient.norm().clamp(min=1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


@contextmanager
def _frozen_statistics(network: nn.Module) -> Iterator[None]:
    norms = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
