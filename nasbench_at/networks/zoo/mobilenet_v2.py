"""MobileNetV2 for small images.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, in the form
that kuangliu/pytorch-cifar gives it. Against the paper, the stem and the second stage keep the
resolution, ReLU stands for ReLU6, every block has an expanding convolution, and a block of stride 1
that widens has a shortcut too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__ = ["MobileNetV2", "Stage"]

_REFERENCE = "Sandler et al., CVPR 2018, as in kuangliu/pytorch-cifar"


class Stage(NamedTuple):
    """A row of the paper's Table 2: t, c, n and s. Only the first block has the stride."""

    expansion: int
    channels: int
    num_blocks: int
    stride: int


class InvertedResidual(nn.Module):
    """y = shortcut(x) + f(x), f: expand 1×1, depthwise 3×3, project 1×1; strided without shortcut.

    Args:
        in_channels: Input channels i.
        out_channels: Output channels o. Where they differ, the shortcut is a 1×1 convolution.
        expansion: The depthwise convolution works on ``expansion * in_channels`` channels.
        stride: Stride s of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.residual = nn.Sequential(
            *_conv_norm(conv1x1(in_channels, hidden)),
            nn.ReLU(inplace=True),
            *_conv_norm(conv3x3(hidden, hidden, stride=stride, groups=hidden)),
            nn.ReLU(inplace=True),
            *_conv_norm(conv1x1(hidden, out_channels)),
        )
        self.shortcut: nn.Module | None = None
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif stride == 1:
            self.shortcut = nn.Sequential(*_conv_norm(conv1x1(in_channels, out_channels)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, o, ceil(H/s), ceil(W/s))``."""
        output: Tensor = self.residual(x)
        return output if self.shortcut is None else output + self.shortcut(x)


class MobileNetV2(nn.Module):
    """A 3×3 stem, inverted residuals, a 1×1 convolution to the features that are pooled.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        stem_channels: Output channels of the stem.
        stages: The inverted residuals.
        features: Channels before pooling.

    Reference:
        Sandler et al., CVPR 2018, Table 2.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        stem_channels: int,
        stages: Sequence[Stage],
        features: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm(conv3x3(in_channels, stem_channels)), nn.ReLU(inplace=True)
        )
        width = stem_channels
        self.blocks = nn.Sequential()
        for stage in stages:
            for i in range(stage.num_blocks):
                self.blocks.append(
                    InvertedResidual(
                        width,
                        stage.channels,
                        expansion=stage.expansion,
                        stride=stage.stride if i == 0 else 1,
                    )
                )
                width = stage.channels
        self.last = nn.Sequential(*_conv_norm(conv1x1(width, features)), nn.ReLU(inplace=True))
        self.head = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        x = self.last(self.blocks(self.stem(x)))
        logits: Tensor = self.head(spatial_mean(x, training=self.training))
        return logits


def _conv_norm(conv: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return conv, nn.BatchNorm2d(conv.out_channels)


@register_model("mobilenet_v2", summary="MobileNetV2 for small images", reference=_REFERENCE)
def _mobilenet_v2(num_classes: int, input_shape: InputShape) -> MobileNetV2:
    stages = (
        Stage(1, 16, 1, 1),
        Stage(6, 24, 2, 1),
        Stage(6, 32, 3, 2),
        Stage(6, 64, 4, 2),
        Stage(6, 96, 3, 1),
        Stage(6, 160, 3, 2),
        Stage(6, 320, 1, 1),
    )
    return MobileNetV2(input_shape[0], num_classes, stem_channels=32, stages=stages, features=1280)


@register_model("tiny_mobilenet_v2", summary="a MobileNetV2 for tests", reference=_REFERENCE)
def _tiny_mobilenet_v2(num_classes: int, input_shape: InputShape) -> MobileNetV2:
    stages = (Stage(1, 4, 1, 1), Stage(6, 8, 2, 2), Stage(6, 16, 2, 2))
    return MobileNetV2(input_shape[0], num_classes, stem_channels=8, stages=stages, features=64)
