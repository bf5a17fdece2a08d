"""The aggregated residual bottleneck.

Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017, as in the
second block set of the DS-Net authors' code, which ends it in a BatchNorm.
"""

from __future__ import annotations

from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["ResNeXtBottleneck"]


@register_block(
    "resnext",
    summary="bottleneck with grouped 3x3 convolution",
    reference="Xie et al., CVPR 2017",
    kind="handcrafted",
)
class ResNeXtBottleneck(nn.Module):
    """y = norm(act(x + g(x))), g: 1×1 to D channels, grouped 3×3, 1×1 back.

    Args:
        channels: Number of channels C, at least 128 / base_width.
        cardinality: Number of groups; D = cardinality * int(base_width * C / 128).
        base_width: Width of a group at 128 channels.
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If the groups would be empty.
    """

    def __init__(
        self,
        channels: int,
        *,
        cardinality: int = 8,
        base_width: int = 64,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        group_width = base_width * channels // 128
        if group_width < 1 or cardinality < 1:
            raise ValueError(
                f"resnext needs cardinality >= 1 and base_width * channels >= 128, got "
                f"cardinality {cardinality}, base_width {base_width}, channels {channels}"
            )
        hidden = cardinality * group_width
        self.reduce = conv1x1(channels, hidden)
        self.norm1 = make_norm(norm, hidden)
        self.grouped = conv3x3(hidden, hidden, groups=cardinality)
        self.norm2 = make_norm(norm, hidden)
        self.expand = conv1x1(hidden, channels)
        self.norm3 = make_norm(norm, channels)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.activation(self.norm1(self.reduce(x)))
        hidden = self.activation(self.norm2(self.grouped(hidden)))
        output: Tensor = self.norm(self.activation(x + self.norm3(self.expand(hidden))))
        return output
