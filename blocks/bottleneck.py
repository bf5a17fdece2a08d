"""The bottleneck of the deep residual networks.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with a norm behind the sum as
the other blocks have.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["Bottleneck"]


@register_block(
    "bottleneck",
    summary="post-activation residual bottleneck",
    reference="He et al., CVPR 2016, Fig. 5",
    kind="handcrafted",
)
class Bottleneck(nn.Module):
    """y = norm(act(x + g(x))), g: 1×1 to D channels, 3×3, 1×1 back.

    Args:
        channels: Number of channels C.
        reduction: D = max(1, C // reduction).
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If ``reduction`` is below 1.
    """

    def __init__(
        self, channels: int, *, reduction: int = 4, activation: str = "relu", norm: str = "batch"
    ) -> None:
        super().__init__()
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        hidden = max(1, channels // reduction)
        self.reduce = conv1x1(channels, hidden)
        self.norm1 = make_norm(norm, hidden)
        self.conv = conv3x3(hidden, hidden)
        self.norm2 = make_norm(norm, hidden)
        self.expand = conv1x1(hidden, channels)
        self.norm3 = make_norm(norm, channels)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.activation(self.norm1(self.reduce(x)))
        hidden = self.activation(self.norm2(self.conv(hidden)))
        output: Tensor = self.norm(self.activation(x + self.norm3(self.expand(hidden))))
        return output
