"""The implicit-Euler block.

Li et al., "Implicit Euler Skip Connections: Enhancing Adversarial Robustness via Numerical
Stability", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from blocks.layers import PreActivation
from blocks.registry import register_block

__all__ = ["ImplicitEuler", "check_solver", "implicit_euler"]

Residual: TypeAlias = Callable[[Tensor], Tensor]


def implicit_euler(
    x: Tensor, residual: Residual, solvers: Sequence[Residual], *, step: float, sign: float = 1.0
) -> Tensor:
    """Approaches the solution of y = x + f(y) by gradient descent from y = x + f(x).

    Each descent step takes ``step`` times the gradient of ‖r‖², r = y − x − f(y), off y, which is
    2·step·(r − J_f(y)ᵀ r). As in the authors' code it is a constant to whatever differentiates the
    result: gradients flow through x + f(x) alone. It is computed under ``torch.no_grad`` too.

    Args:
        x: Shape ``(N, C, H, W)``.
        residual: f of the starting point; keeps the shape.
        solvers: f of each descent step, in order; the same f again unless something is tried.
        step: Length of the descent steps.
        sign: Factor of f in the descent steps.

    Returns:
        Shape ``(N, C, H, W)``.
    """
    y = x + residual(x)
    for solver in solvers:
        y = y - 2 * step * _half_gradient(x, y, solver, sign)
    return y


def _half_gradient(x: Tensor, y: Tensor, residual: Residual, sign: float) -> Tensor:
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        slope = residual(point)
    with torch.no_grad():
        gap = y - x - sign * slope
    (pulled_back,) = torch.autograd.grad(slope, point, gap)
    return gap - sign * pulled_back


def check_solver(iterations: int, step: float) -> None:
    """Checks the options of the descent.

    Raises:
        ValueError: If ``iterations`` is below 1, or ``step`` is not a positive number.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if not 0 < step < math.inf:
        raise ValueError(f"step must be positive and finite, got {step}")


@register_block(
    "implicit_euler",
    summary="implicit Euler step, solved by gradient descent",
    reference="Li et al., ICML 2020",
    kind="ode",
)
class ImplicitEuler(nn.Module):
    """y ≈ x + f(y), f two pre-activated 3×3 convolutions; see :func:`implicit_euler`.

    Where the norms are BatchNorms, the descent moves their running statistics too.

    Args:
        channels: Number of channels C; 18C² + 6C parameters with the defaults.
        iterations: Number of descent steps, at least 1.
        step: Length of a descent step, positive.
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If an option is outside its range.
    """

    def __init__(
        self,
        channels: int,
        *,
        iterations: int = 1,
        step: float = 0.1,
        activation: str = "relu",
        norm: str = "layer",
    ) -> None:
        super().__init__()
        check_solver(iterations, step)
        self.residual = PreActivation(channels, channels, activation=activation, norm=norm)
        self.iterations = iterations
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        return implicit_euler(x, self.residual, [self.residual] * self.iterations, step=self.step)
