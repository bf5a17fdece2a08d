"""The ConvNeXt block.

Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from blocks.layers import conv1x1, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["ConvNeXt"]


@register_block(
    "convnext",
    summary="depthwise 7x7 convolution and inverted bottleneck with layer scale",
    reference="Liu et al., CVPR 2022, Fig. 4",
    kind="handcrafted",
)
class ConvNeXt(nn.Module):
    """y = x + γ·conv1×1(act(conv1×1(norm(depthwise 7×7(x))))), γ learned for each channel.

    Args:
        channels: Number of channels C; 8C² + 58C parameters with the defaults.
        expansion: The hidden width is ``expansion * channels``.
        layer_scale: Initial value of γ.
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If ``expansion`` is below 1, or ``layer_scale`` not finite.
    """

    def __init__(
        self,
        channels: int,
        *,
        expansion: int = 4,
        layer_scale: float = 1e-6,
        activation: str = "gelu",
        norm: str = "channel_layer",
    ) -> None:
        super().__init__()
        if expansion < 1:
            raise ValueError(f"expansion must be at least 1, got {expansion}")
        if not math.isfinite(layer_scale):
            raise ValueError(f"layer_scale must be finite, got {layer_scale}")
        hidden = expansion * channels
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = make_norm(norm, channels)
        self.expand = conv1x1(channels, hidden, bias=True)
        self.activation = make_activation(activation)
        self.project = conv1x1(hidden, channels, bias=True)
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), float(layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.activation(self.expand(self.norm(self.depthwise(x))))
        output: Tensor = x + self.layer_scale * self.project(hidden)
        return output
