"""The tree of deep layer aggregation.

Yu et al., "Deep Layer Aggregation", CVPR 2018, Fig. 3, at two levels, as in the second block set of
the DS-Net authors' code. Alone among their blocks it does not end in a BatchNorm of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, make_activation, make_norm
from blocks.registry import register_block

__all__ = ["DLATree"]


class BasicBlock(nn.Module):
    """B(x) = act(x + norm(conv3×3(act(norm(conv3×3(x))))))."""

    def __init__(self, channels: int, *, activation: str, norm: str) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.norm1 = make_norm(norm, channels)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        hidden = self.conv2(self.activation(self.norm1(self.conv1(x))))
        output: Tensor = self.activation(x + self.norm2(hidden))
        return output


class Root(nn.Module):
    """Aggregates features: act(norm(conv1×1(concatenation)))."""

    def __init__(self, num_inputs: int, channels: int, *, activation: str, norm: str) -> None:
        super().__init__()
        self.conv = conv1x1(num_inputs * channels, channels)
        self.norm = make_norm(norm, channels)
        self.activation = make_activation(activation, norm=norm)

    def forward(self, *features: Tensor) -> Tensor:
        """Maps ``num_inputs`` tensors ``(N, C, H, W)`` to one of that shape."""
        output: Tensor = self.activation(self.norm(self.conv(torch.cat(features, dim=1))))
        return output


@register_block(
    "dla_tree",
    summary="two-level tree of basic residual blocks with aggregation nodes",
    reference="Yu et al., CVPR 2018, Fig. 3",
    kind="handcrafted",
)
class DLATree(nn.Module):
    """y = root(p, t, l, r): p = B(x); t the level-1 tree of x; l = B(t); r = B(l).

    The level-1 tree is root(l', r') with l' = B(x), r' = B(l').

    Args:
        channels: Number of channels C; 96C² + 24C parameters with the defaults.
        activation: As in the residual block.
        norm: As in the residual block.
    """

    def __init__(self, channels: int, *, activation: str = "relu", norm: str = "batch") -> None:
        super().__init__()

        def basic() -> BasicBlock:
            return BasicBlock(channels, activation=activation, norm=norm)

        self.previous = basic()
        self.level1_left = basic()
        self.level1_right = basic()
        self.level1_root = Root(2, channels, activation=activation, norm=norm)
        self.left = basic()
        self.right = basic()
        self.root = Root(4, channels, activation=activation, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        level1_left = self.level1_left(x)
        tree = self.level1_root(level1_left, self.level1_right(level1_left))
        left = self.left(tree)
        output: Tensor = self.root(self.previous(x), tree, left, self.right(left))
        return output
