"""Random directions in weight space, scaled filter by filter to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nasbench_at.networks.ds_net import DSNet
from nasbench_at.runtime.seeding import make_generator

__all__ = ["RULES", "Direction", "draw_direction", "moved_parameters"]

Direction: TypeAlias = Mapping[str, Tensor]
"""By parameter name, what is added to it; on the CPU. Parameters not named stay."""

RULES = "filters scaled to their norms; biases, norms, attention and running statistics fixed"
"""What moves and what does not: a line for results and figures."""


def moved_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns by name the parameters that a direction moves.

    These are the weights of two or more dimensions, not biases, the parameters of norms, scalars
    and the attention logits of a DS-Net.

    Raises:
        ValueError: If there are none, or they are not of one floating-point type on one device.
    """
    fixed = set(map(id, model.attention_parameters())) if isinstance(model, DSNet) else set()
    moved = {
        name: parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in fixed and parameter.ndim >= 2
    }
    kinds = sorted({f"{parameter.dtype} on {parameter.device}" for parameter in moved.values()})
    if len(kinds) != 1:
        raise ValueError(
            "the model must have weights of two or more dimensions, all of one type on one device, "
            f"got {' and '.join(kinds) or 'none'}"
        )
    return moved


def draw_direction(model: nn.Module, number: int, *, seed: int = 0) -> Direction:
    """Draws a filter-normalised direction.

    Each entry is standard normal. Then each filter, that is each index of a weight's first axis, is
    scaled to the norm of the filter it will be added to.

    Args:
        model: Its weights give shapes and norms.
        number: Which direction; directions of different numbers are independent.
        seed: Seed of all directions; they are drawn on the CPU, so that a GPU gets the same ones.

    Raises:
        ValueError: As :func:`moved_parameters`.

    Reference:
        Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, Sec. 4. They too
        leave biases and BatchNorm's parameters where they are.
    """
    generator = make_generator(seed, "landscape", number)
    direction = {}
    for name, parameter in moved_parameters(model).items():
        weight = parameter.detach().cpu()
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        smallest = torch.finfo(weight.dtype).tiny
        direction[name] = noise * (_norms(weight) / _norms(noise).clamp_min(smallest))
    return direction


def _norms(weight: Tensor) -> Tensor:
    """Norms of the filters, in a shape that multiplies them."""
    axes = tuple(range(1, weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    return norms
