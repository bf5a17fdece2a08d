"""The mobile inverted bottleneck with squeeze-and-excitation.

Tan and Le, "EfficientNet", ICML 2019, whose block a search found; expansion 2 and drop-connect 0.2
as in the DS-Net authors' code, which also ends the block in a BatchNorm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from blocks.layers import check_kernel_size, conv1x1, make_activation, make_norm, spatial_mean
from blocks.registry import register_block

__all__ = ["MBConv", "SqueezeExcite", "drop_connect"]


def drop_connect(x: Tensor, rate: float) -> Tensor:
    """Drops whole samples of a residual branch and scales the others up.

    Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016. One uniform number a sample is
    drawn from the global generator of the input's device.

    Args:
        x: Shape ``(N, C, H, W)``.
        rate: Probability of dropping a sample, in [0, 1).

    Returns:
        Shape ``(N, C, H, W)``; its mean over the draws is x.
    """
    keep = 1 - rate
    mask = torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).add_(keep).floor_()
    return x / keep * mask


class SqueezeExcite(nn.Module):
    """Gates each channel by its global context (Hu et al., CVPR 2018).

    Args:
        channels: Channels of input and output.
        squeezed: Channels of the bottleneck.
        activation: Name of the activation in the bottleneck.
    """

    def __init__(self, channels: int, squeezed: int, *, activation: str = "silu") -> None:
        super().__init__()
        self.reduce = conv1x1(channels, squeezed, bias=True)
        self.expand = conv1x1(squeezed, channels, bias=True)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        context = spatial_mean(x, training=self.training)[:, :, None, None]
        gate = self.expand(self.activation(self.reduce(context)))
        # A half-precision sigmoid saturates early; the authors' mixed precision exempts it too.
        wide = gate.float() if gate.dtype in (torch.float16, torch.bfloat16) else gate
        gated: Tensor = x * wide.sigmoid().to(x.dtype)
        return gated


@register_block(
    "mbconv",
    summary="mobile inverted bottleneck with squeeze-and-excitation and drop-connect",
    reference="Tan and Le, ICML 2019; Du et al., ICML 2021, Fig. 2",
    kind="searched",
)
class MBConv(nn.Module):
    """y = norm(x + drop_connect(m(x))), m: expand 1×1, depthwise k×k, squeeze-excite, project 1×1.

    The squeeze-excite bottleneck is sized by the block's width C, not by the expanded one.

    Args:
        channels: Number of channels C.
        expansion: The depthwise convolution works on ``expansion * channels`` channels.
        kernel_size: Odd size of the depthwise kernel.
        se_ratio: The bottleneck has max(1, int(se_ratio * C)) channels; finite, at least 0.
        drop_connect: Probability of dropping m(x) for a sample while training, in [0, 1).
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If an option is outside its range.
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: int = 2,
        kernel_size: int = 3,
        se_ratio: float = 0.25,
        drop_connect: float = 0.2,
        activation: str = "silu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise ValueError(f"expansion must be at least 1, got {expansion}")
        check_kernel_size(kernel_size)
        if not 0 <= se_ratio < math.inf:
            raise ValueError(f"se_ratio must be finite and at least 0, got {se_ratio}")
        if not 0 <= drop_connect < 1:
            raise ValueError(f"drop_connect must lie in [0, 1), got {drop_connect}")
        hidden = expansion * channels
        self.expand = conv1x1(channels, hidden)
        self.norm1 = make_norm(norm, hidden)
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden, bias=False
        )
        self.norm2 = make_norm(norm, hidden)
        squeezed = max(1, int(se_ratio * channels))
        self.squeeze_excite = SqueezeExcite(hidden, squeezed, activation=activation)
        self.project = conv1x1(hidden, channels)
        self.norm3 = make_norm(norm, channels)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)
        self.drop_rate = drop_connect

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.activation(self.norm1(self.expand(x)))
        hidden = self.activation(self.norm2(self.depthwise(hidden)))
        branch = self.norm3(self.project(self.squeeze_excite(hidden)))
        if self.training and self.drop_rate > 0:
            branch = drop_connect(branch, self.drop_rate)
        output: Tensor = self.norm(x + branch)
        return output
