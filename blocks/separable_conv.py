"""Depthwise separable convolutions.

Chollet, "Xception", CVPR 2017, in the form that architecture searches use: Liu et al., "DARTS",
ICLR 2019.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import check_kernel_size, conv1x1, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["SeparableConv"]


@register_block(
    "separable_conv",
    summary="activation, depthwise and pointwise convolution, norm, twice",
    reference="Chollet, CVPR 2017; Liu et al., ICLR 2019",
    kind="handcrafted",
)
class SeparableConv(nn.Module):
    """y = s₂(s₁(x)), each sᵢ(x) = norm(conv1×1(depthwise k×k(act(x)))).

    Args:
        channels: Number of channels C; 2C² + (2k² + 4)C parameters with the defaults.
        kernel_size: Odd size k of the depthwise kernels.
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If ``kernel_size`` is not odd and positive.
    """

    def __init__(
        self, channels: int, *, kernel_size: int = 3, activation: str = "relu", norm: str = "batch"
    ) -> None:
        super().__init__()
        check_kernel_size(kernel_size)

        def depthwise() -> nn.Conv2d:
            padding = kernel_size // 2
            return nn.Conv2d(
                channels, channels, kernel_size, padding=padding, groups=channels, bias=False
            )

        # The first activation takes the block's input, which other blocks share.
        self.activation1 = make_activation(activation)
        self.depthwise1 = depthwise()
        self.pointwise1 = conv1x1(channels, channels)
        self.norm1 = make_norm(norm, channels)
        self.activation2 = make_activation(activation, norm=norm)
        self.depthwise2 = depthwise()
        self.pointwise2 = conv1x1(channels, channels)
        self.norm2 = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.norm1(self.pointwise1(self.depthwise1(self.activation1(x))))
        output: Tensor = self.norm2(self.pointwise2(self.depthwise2(self.activation2(hidden))))
        return output
