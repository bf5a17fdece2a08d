"""A plain convolution, the block that every other is compared with.

Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015, with a norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import check_kernel_size, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["PlainConv"]


@register_block(
    "plain_conv",
    summary="convolution, norm, activation",
    reference="Simonyan and Zisserman, ICLR 2015",
    kind="handcrafted",
)
class PlainConv(nn.Module):
    """y = act(norm(conv k×k(x))).

    Args:
        channels: Number of channels C; k²C² + 2C parameters with the defaults.
        kernel_size: Odd size k of the kernel.
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
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        output: Tensor = self.activation(self.norm(self.conv(x)))
        return output
