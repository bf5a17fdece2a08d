"""The residual block, and the one that halves resolution between stages.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, in the form of the DS-Net
authors' code (d12306/dsnet): biased convolutions, and a BatchNorm after the sum, which the paper's
Figure 2 does not show.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import PreActivation, conv1x1, make_norm
from blocks.registry import register_block

__all__ = ["ReductionBlock", "ResidualBlock"]


@register_block(
    "residual",
    summary="pre-activation residual block: norm(f(x) + x)",
    reference="He et al., ECCV 2016; Du et al., ICML 2021, Fig. 2",
    kind="handcrafted",
)
class ResidualBlock(nn.Module):
    """y = norm(f(x) + x), f two pre-activated 3×3 convolutions.

    Args:
        channels: Number of channels C; 18C² + 8C parameters with the defaults.
        activation: ``relu``, ``silu``, ``softplus``, ``elu``, ``gelu`` or ``smooth_relu``.
        norm: ``batch``, ``layer``, ``channel_layer`` or ``none``.
    """

    def __init__(self, channels: int, *, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()
        self.residual = PreActivation(channels, channels, activation=activation, norm=norm)
        self.norm = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        output: Tensor = self.norm(self.residual(x) + x)
        return output


class ReductionBlock(nn.Module):
    """The residual block between two stages: widens, and halves resolution (rounding up).

    With a = act(norm₁(x)), y = norm(f(x) + norm_d(conv1×1(a))): both branches start from a. The
    authors' code computes a twice and so updates norm₁'s running statistics twice; here they are
    moved as much in one evaluation.

    Args:
        in_channels: Input channels i.
        out_channels: Output channels o; 2i + 10io + 9o² + 8o parameters.
        stride: Stride of both branches.
        activation: As in :class:`ResidualBlock`.
        norm: As in :class:`ResidualBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 2,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        self.residual = PreActivation(
            in_channels, out_channels, stride=stride, activation=activation, norm=norm
        )
        self.shortcut = nn.Sequential(
            conv1x1(in_channels, out_channels, stride=stride), make_norm(norm, out_channels)
        )
        self.norm = make_norm(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, o, ceil(H/s), ceil(W/s))``."""
        activated = self.residual.activate_input(x, updates=2)
        output: Tensor = self.norm(self.residual.convolve(activated) + self.shortcut(activated))
        return output
