"""Compute convolution and norm as one for the length of an attack."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import torch
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def folded_norms(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers in eval mode be what they compute: one affine map a channel.

    Its coefficients are worked out once, for all steps of an attack, and its backward pass is a
    multiplication. A layer behind a convolution of its own, named by `conv_norm_pairs` of the
    module that holds both, becomes part of that convolution. Results differ by rounding.

    Inside, other modules stand in the place of these layers. They are of the same types and shapes
    in every attack, so that code compiled for one serves the next.

    Args:
        model: The model, in the mode in which it will be attacked.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []

    def put(parent: nn.Module, name: str, module: nn.Module) -> None:
        path, _, leaf = name.rpartition(".")
        holder = parent.get_submodule(path)
        replaced.append((holder, leaf, holder.get_submodule(leaf)))
        setattr(holder, leaf, module)

    try:
        for parent in list(model.modules()):
            for conv_name, norm_name in getattr(parent, "conv_norm_pairs", ()):
                conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
                if _is_plain_convolution(conv) and _is_foldable(norm):
                    put(parent, conv_name, _fold(conv, norm))
                    put(parent, norm_name, nn.Identity())
            for name, child in list(parent.named_children()):
                if _is_foldable(child):
                    put(parent, name, AffineMap(child))
        yield
    finally:
        for holder, leaf, module in reversed(replaced):
            setattr(holder, leaf, module)


class AffineMap(nn.Module):
    """A BatchNorm layer in eval mode: scale times input plus shift, channel by channel."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.scale, self.shift = _coefficients(norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, ...) to the same shape."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale, shift = self.scale.view(shape).to(x.dtype), self.shift.view(shape).to(x.dtype)
        return torch.addcmul(shift, x, scale)


def _is_plain_convolution(conv: nn.Module) -> TypeGuard[nn.Conv2d]:
    """A convolution whose weight is a parameter, not computed from others as spectral norm does."""
    return isinstance(conv, nn.Conv2d) and "weight" in conv._parameters


def _is_foldable(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    return isinstance(norm, _BatchNorm) and not norm.training and norm.running_var is not None


def _coefficients(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift of the affine map that a BatchNorm layer is in eval mode, (C,)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> nn.Conv2d:
    """Return convolution and norm in one, with tensors for parameters."""
    scale, shift = _coefficients(norm)
    bias = shift if conv.bias is None else shift + conv.bias.detach() * scale
    folded = copy.copy(conv)
    vars(folded)["_parameters"] = {}
    vars(folded).update(weight=conv.weight.detach() * scale.view(-1, 1, 1, 1), bias=bias)
    return folded
