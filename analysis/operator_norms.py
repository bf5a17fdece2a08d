"""Spectral norms of linear layers as operators on inputs of a given size; largest eigenvalues.

A convolution's norm depends on the resolution it works on, on its padding and its stride. The norm
of its kernel reshaped to a matrix is neither equal to it nor a bound of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

# All BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "TopEigenvalue",
    "compute_operator_norm",
    "compute_output_shape",
    "compute_top_eigenvalue",
    "is_affine",
]

_AFFINE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Linear,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
)


@dataclass(frozen=True)
class TopEigenvalue:
    """The largest eigenvalue of a symmetric operator.

    Attributes:
        value: Its approximation, from below.
        error: An eigenvalue lies within this distance of it.
        num_steps: Applications of the operator.
        converged: Whether the error came below what was asked for.
    """

    value: float
    error: float
    num_steps: int
    converged: bool


def compute_top_eigenvalue(
    apply: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    tolerance: float = 1e-8,
    max_steps: int = 300,
) -> TopEigenvalue:
    """Finds the largest eigenvalue (not the largest magnitude) of a symmetric operator.

    This is the power iteration that forgets nothing, Lanczos' method: after k applications it has
    the best value of all vectors in the span of the start's first k images, where the plain
    iteration has that of the last image. Convolutions' norms lie so close together that this is
    tens of steps against thousands. Vectors are not reorthogonalised, which multiplies eigenvalues
    but does not move the largest (Paige, 1980), so three of them suffice.

    Args:
        apply: Maps a vector to a vector.
        start: Where to begin, shape ``(n,)``; best random, since what is orthogonal to it is not
            seen.
        tolerance: Error to stop at, relative to the value.
        max_steps: Applications at most.

    Raises:
        ValueError: If ``max_steps`` is below 1, or the start is zero or not finite.
    """
    length = float(start.norm())
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if not 0 < length < float("inf"):
        raise ValueError(f"start must have a positive finite length, got {length}")
    vector, previous, coupling = start / length, torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    couplings: list[float] = []
    value, error, converged = 0.0, float("inf"), False
    while len(diagonal) < max_steps and not converged:
        image = apply(vector) - coupling * previous
        diagonal.append(float(vector @ image))
        image = image - diagonal[-1] * vector
        coupling = float(image.norm())
        value, last_entry = _top_of_tridiagonal(diagonal, couplings)
        error = coupling * last_entry
        converged = error <= tolerance * abs(value)
        if not converged:
            couplings.append(coupling)
            previous, vector = vector, image / coupling
    return TopEigenvalue(value, error, len(diagonal), converged)


def _top_of_tridiagonal(diagonal: list[float], couplings: list[float]) -> tuple[float, float]:
    """Returns the largest eigenvalue, and the magnitude of its eigenvector's last entry."""
    matrix = np.diag(diagonal) + np.diag(couplings, 1) + np.diag(couplings, -1)
    values, vectors = np.linalg.eigh(matrix)
    return float(values[-1]), float(abs(vectors[-1, -1]))


def is_affine(layer: nn.Module) -> TypeGuard[nn.Module]:
    """Says whether a layer in eval mode is a linear map plus a constant."""
    return isinstance(layer, _AFFINE) or (
        isinstance(layer, _BatchNorm) and layer.running_var is not None
    )


def compute_operator_norm(
    layers: nn.Module | Sequence[nn.Module],
    input_shape: Sequence[int],
    *,
    tolerance: float = 1e-8,
    max_steps: int = 300,
    seed: int = 0,
) -> float:
    """Computes the spectral norm of affine layers, one after the other, in eval mode.

    Taken together they may have a smaller norm than the product of theirs: a BatchNorm is a
    diagonal map that is folded into its convolution here.

    Args:
        layers: Convolutions (any stride, padding, dilation, groups), linear layers, BatchNorms
            with running statistics, average pools; a layer or several.
        input_shape: Shape of one input without the batch, such as ``(C, H, W)``.
        tolerance: Relative error of the squared norm.
        max_steps: Applications of the operator and its transpose at most.
        seed: Of the start.

    Returns:
        The norm, rounded up by the error that is left: computed in float64.

    Raises:
        ValueError: If a layer is not affine, or takes no input of this shape.
    """
    chain = [layers] if isinstance(layers, nn.Module) else list(layers)
    for layer in chain:
        if not is_affine(layer):
            raise ValueError(f"layer {layer!r} is not affine: it has no operator norm")
    shape = tuple(input_shape)
    function = _in_float64(chain)
    zero = _zeros(chain, shape)
    with torch.enable_grad():
        point = zero.requires_grad_()
        try:
            output = function(point)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"layers take no input of shape {shape}: {reason}") from None
    constant = output.detach()

    def apply(vector: Tensor) -> Tensor:
        with torch.no_grad():
            image = function(vector.view(point.shape)) - constant
        (pulled_back,) = torch.autograd.grad(output, point, image, retain_graph=True)
        return pulled_back.reshape(-1)

    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(point.numel(), generator=generator, dtype=torch.float64).to(point.device)
    top = compute_top_eigenvalue(apply, start, tolerance=tolerance, max_steps=max_steps)
    return float(np.sqrt(max(top.value, 0.0) + top.error))


def compute_output_shape(layer: nn.Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape that an affine layer makes of an input's, both without the batch."""
    with torch.no_grad():
        output = _in_float64([layer])(_zeros([layer], tuple(input_shape)))
    return tuple(output.shape[1:])


def _in_float64(layers: Sequence[nn.Module]) -> nn.Sequential:
    function = nn.Sequential(*(copy.deepcopy(layer) for layer in layers)).double().eval()
    return function.requires_grad_(False)


def _zeros(layers: Sequence[nn.Module], shape: tuple[int, ...]) -> Tensor:
    tensors = (tensor for layer in layers for tensor in (*layer.parameters(), *layer.buffers()))
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return torch.zeros(1, *shape, dtype=torch.float64, device=device)
