"""The densely connected block.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. Where that paper concatenates
all features, the DS-Net authors' code takes their mean, so that the width does not grow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["DenseBlock", "DenseLayer"]


class DenseLayer(nn.Module):
    """norm, activation, 1×1 convolution to the bottleneck, norm, activation, 3×3 convolution.

    Args:
        in_channels: Channels of all features so far.
        bottleneck: Channels between the convolutions.
        growth: Channels of the new feature.
        activation: Name of the activation.
        norm: Name of the norm.
    """

    def __init__(
        self, in_channels: int, bottleneck: int, growth: int, *, activation: str, norm: str
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, in_channels)
        self.conv1 = conv1x1(in_channels, bottleneck)
        self.norm2 = make_norm(norm, bottleneck)
        self.conv2 = conv3x3(bottleneck, growth)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, *features: Tensor) -> Tensor:
        """Maps features of together ``in_channels`` channels to ``(N, growth, H, W)``."""
        joined = torch.cat(features, dim=1) if len(features) > 1 else features[0]
        hidden = self.conv1(self.activation(self.norm1(joined)))
        output: Tensor = self.conv2(self.activation(self.norm2(hidden)))
        return output


@register_block(
    "dense",
    summary="densely connected layers, their features averaged",
    reference="Huang et al., CVPR 2017; Du et al., ICML 2021, Fig. 2",
    kind="handcrafted",
)
class DenseBlock(nn.Module):
    """y = norm(merge(x, l₁, l₂, …)), each layer lᵢ seeing x and all features before it.

    Args:
        channels: Number of channels C; 84C² + 24C parameters with the defaults.
        num_layers: Number of dense layers, at least 1.
        bottleneck: The 1×1 convolutions have ``bottleneck * growth`` output channels.
        growth: Channels of each new feature. None takes C and merges by the mean (the authors'
            form); a number concatenates and projects back to C by a 1×1 convolution.
        activation: As in the residual block.
        norm: As in the residual block.

    Raises:
        ValueError: If a count is below 1.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_layers: int = 2,
        bottleneck: int = 4,
        growth: int | None = None,
        activation: str = "relu",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        width = channels if growth is None else growth
        for option, value in (
            ("num_layers", num_layers),
            ("bottleneck", bottleneck),
            ("growth", width),
        ):
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}")
        self.layers = nn.ModuleList(
            DenseLayer(
                channels + i * width, bottleneck * width, width, activation=activation, norm=norm
            )
            for i in range(num_layers)
        )
        self.project = None if growth is None else conv1x1(channels + num_layers * width, channels)
        self.norm = make_norm(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        features = [x]
        for layer in self.layers:
            features.append(layer(*features))
        if self.project is None:
            merged = sum(features[1:], start=x) / len(features)
        else:
            merged = self.project(torch.cat(features, dim=1))
        output: Tensor = self.norm(merged)
        return output
