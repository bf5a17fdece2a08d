"""Runge-Kutta blocks with fixed coefficients: strong-stability-preserving ones and the midpoint.

Kim et al., "Robust Neural Networks inspired by Strong Stability Preserving Runge-Kutta methods",
ECCV 2020. Every stage evaluates one shared residual, whose BatchNorms therefore see several inputs.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import PreActivation
from blocks.registry import register_block
from blocks.residual import ResidualBlock

__all__ = ["SSP2", "SSP3", "MidpointRK2"]


@register_block(
    "ssp2",
    summary="two-stage strong-stability-preserving Runge-Kutta step",
    reference="Kim et al., ECCV 2020",
    kind="ode",
)
class SSP2(nn.Module):
    """y = ½x + ½R(R(x)), R one residual block.

    Args:
        channels: Number of channels C; 18C² + 8C parameters with the defaults.
        activation: As in the residual block.
        norm: As in the residual block.
    """

    def __init__(self, channels: int, *, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()
        self.block = ResidualBlock(channels, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        output: Tensor = (x + self.block(self.block(x))) / 2
        return output


@register_block(
    "ssp3",
    summary="three-stage strong-stability-preserving Runge-Kutta step",
    reference="Kim et al., ECCV 2020",
    kind="ode",
)
class SSP3(nn.Module):
    """y = ⅓x + ⅔R(x₂), x₂ = ¾x + ¼R(R(x)), R one residual block.

    Args:
        channels: Number of channels C; 18C² + 8C parameters with the defaults.
        activation: As in the residual block.
        norm: As in the residual block.
    """

    def __init__(self, channels: int, *, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()
        self.block = ResidualBlock(channels, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        x2 = (3 * x + self.block(self.block(x))) / 4
        output: Tensor = (x + 2 * self.block(x2)) / 3
        return output


@register_block(
    "mid_rk2",
    summary="midpoint Runge-Kutta step",
    reference="Kim et al., ECCV 2020",
    kind="ode",
)
class MidpointRK2(nn.Module):
    """y = m + f(m), m = x + ½f(x), f two pre-activated 3×3 convolutions.

    This is the form of the authors' code; the textbook's step is x + f(m).

    Args:
        channels: Number of channels C; 18C² + 6C parameters with the defaults.
        activation: As in the residual block.
        norm: As in the residual block.
    """

    def __init__(self, channels: int, *, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()
        self.residual = PreActivation(channels, channels, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        midpoint = x + self.residual(x) / 2
        output: Tensor = midpoint + self.residual(midpoint)
        return output
