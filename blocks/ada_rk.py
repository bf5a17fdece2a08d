"""The adaptive Runge-Kutta block.

Kim et al., "Robust Neural Networks inspired by Strong Stability Preserving Runge-Kutta methods",
ECCV 2020, with the BatchNorm that the DS-Net authors put behind it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.layers import PreActivation, make_norm
from blocks.registry import register_block

__all__ = ["AdaRK"]


@register_block(
    "ada_rk",
    summary="second-order Runge-Kutta step with learned coefficients",
    reference="Kim et al., ECCV 2020; Du et al., ICML 2021, Fig. 2",
    kind="ode",
)
class AdaRK(nn.Module):
    """A two-stage Runge-Kutta step on one shared residual f, with learned α and β.

    The scheme is x₁ = x + β·f(x), y = norm(a₂₀·x + b₂₀·f(x) + α·x₁ + b₂₁·f(x₁)), where
    α = σ(a21), β = σ(b10), a₂₀ = 1 − α, b₂₁ = 1/(2β), b₂₀ = 1 − b₂₁ − αβ. Inserting x₁ gives
    y = norm(x + (b₂₀ + αβ)·f(x) + b₂₁·f(x₁)): α cancels, has gradient zero, and stays a parameter
    only so that counts and weight decay are those of the authors' code. f is evaluated once for
    each of its two inputs; the authors' code evaluates f(x) twice.

    f's BatchNorms see two different inputs, x and x₁. Shared, their running statistics describe
    neither, so that eval mode computes another function than training mode did and robust accuracy
    can collapse. ``separate_norms`` gives f(x₁) norms of its own.

    Args:
        channels: Number of channels C; 18C² + 8C + 2 parameters with the defaults.
        separate_norms: Norms of its own for the evaluation on x₁ (4C more parameters).
        authors_updates: While training, move the shared running statistics as the authors' three
            evaluations do, in their order x, x, x₁. Without effect on ``separate_norms``.
        activation: As in the residual block.
        norm: As in the residual block.
    """

    def __init__(
        self,
        channels: int,
        *,
        separate_norms: bool = False,
        authors_updates: bool = True,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        # The initial values of the authors' training script: α = 0.562, β = 0.731.
        self.a21 = nn.Parameter(torch.tensor(0.25))
        self.b10 = nn.Parameter(torch.tensor(1.0))
        self.residual = PreActivation(channels, channels, activation=activation, norm=norm)
        self.second_norm1 = make_norm(norm, channels) if separate_norms else None
        self.second_norm2 = make_norm(norm, channels) if separate_norms else None
        self.norm = make_norm(norm, channels)
        self.first_updates = 2 if authors_updates and not separate_norms else 1

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        alpha, beta = self.a21.sigmoid(), self.b10.sigmoid()
        b21 = 0.5 / beta
        b20 = 1 - b21 - alpha * beta
        slope = self.residual(x, updates=self.first_updates)

        def add(total: Tensor, factor: Tensor, f: Tensor) -> Tensor:
            # Of one type: CUDA's autocast would widen the whole sum to the factor's.
            return total.addcmul(factor.to(f.dtype), f)

        second_slope = self._second_residual(add(x, beta, slope))
        # The brackets keep α in the autograd graph, with its exact gradient of zero.
        stepped = add(add(x, b20 + alpha * beta, slope), b21, second_slope)
        output: Tensor = self.norm(stepped)
        return output

    def _second_residual(self, x1: Tensor) -> Tensor:
        f = self.residual
        if self.second_norm1 is None or self.second_norm2 is None:
            slope: Tensor = f(x1)
        else:
            hidden = f.conv1(f.activation(self.second_norm1(x1)))
            slope = f.conv2(f.activation(self.second_norm2(hidden)))
        return slope
