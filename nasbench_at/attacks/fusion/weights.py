"""What a fused network computes once an attack: coefficients, and the weights that take them in."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

__all__ = [
    "add",
    "make_bias",
    "make_row",
    "multiply",
    "pack",
    "reciprocal",
    "scale_weight",
    "transpose_weight",
]

Factor: TypeAlias = "float | Tensor"  # a coefficient that is known

_HALVES = (torch.bfloat16, torch.float16)


def multiply(a: Factor, b: Factor) -> Factor:
    """Returns a product, at least in float32."""
    return _widen(a) * _widen(b)


def add(a: Factor, b: Factor) -> Factor:
    """Returns a sum, at least in float32."""
    return _widen(a) + _widen(b)


def reciprocal(a: Tensor) -> Factor:
    """Returns 1/a, at least in float32."""
    return 1 / _widen(a)


def make_row(a: Factor, dtype: torch.dtype, width: int | None) -> Tensor:
    """Returns a coefficient as a tensor.

    Args:
        a: A number, or of shape (1, C, 1, 1).
        dtype: Type of the result.
        width: Width of the images that it will be applied to, if these are in channels_last. The
            few entries of a pixel are no longer than a vector register: repeated for each pixel of
            a line they are applied up to three times as fast.

    Returns:
        Shape (), (1, C, 1, 1) or (1, C, 1, width).
    """
    result = torch.as_tensor(a).to(dtype)
    if width is None or result.ndim < 4:
        return result
    row = result.expand(-1, -1, -1, width)
    return row.contiguous(memory_format=torch.channels_last)


def scale_weight(
    weight: Tensor, inputs: Factor, outputs: Factor, groups: int, dtype: torch.dtype
) -> Tensor:
    """Returns the weight of a convolution between two scalings.

    Args:
        weight: Shape (O, I / groups, h, w).
        inputs: Factor of the input, a number or one of each of I channels.
        outputs: Factor of the output, a number or one of each of O channels.
        groups: Groups of channels.
        dtype: Type of the result.
    """
    scaled = weight
    if isinstance(inputs, Tensor) and inputs.numel() > 1:
        # Each group has inputs of its own.
        grouped = weight.view(groups, -1, *weight.shape[1:])
        scaled = (grouped * inputs.view(groups, 1, -1, 1, 1)).view_as(weight)
    elif isinstance(inputs, Tensor) or inputs != 1.0:
        scaled = scaled * inputs
    if isinstance(outputs, Tensor) and outputs.numel() > 1:
        scaled = scaled * outputs.view(-1, 1, 1, 1)
    elif isinstance(outputs, Tensor) or outputs != 1.0:
        scaled = scaled * outputs
    return scaled.to(dtype, memory_format=torch.contiguous_format)


def transpose_weight(weight: Tensor, groups: int) -> Tensor:
    """Returns the weight with which a convolution computes the gradient of another one's input.

    Args:
        weight: Weight of a convolution without strides, shape (O, I / groups, h, w).
        groups: Its groups.

    Returns:
        Shape (I, O / groups, h, w).
    """
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    transposed: Tensor = grouped.transpose(1, 2).flatten(0, 1)
    return transposed if weight.shape[2:] == (1, 1) else transposed.flip(2, 3)


def pack(
    weight: Tensor,
    padding: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    x_shape: tuple[int, ...],
) -> Tensor:
    """Returns a weight in the order in memory that oneDNN's convolutions read."""
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, stride, dilation, groups, x_shape
    )
    return packed


def make_bias(a: Factor, channels: int, dtype: torch.dtype) -> Tensor:
    """Returns a summand as the bias of a convolution, (channels,)."""
    return torch.as_tensor(a).reshape(-1).expand(channels).to(dtype).contiguous()


def _widen(a: Factor) -> Factor:
    return a.float() if isinstance(a, Tensor) and a.dtype in _HALVES else a
