"""Densely connected networks for small images.

Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, in the form that
kuangliu/pytorch-cifar gives them: a 3×3 stem without norm or pooling, and new features in front of
the earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blocks.dense import DenseLayer
from blocks.layers import conv1x1, conv3x3, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__ = ["DenseNet"]

_REFERENCE = "Huang et al., CVPR 2017, as in kuangliu/pytorch-cifar"


class DenseStage(nn.Module):
    """Dense layers at one resolution, each seeing the input and all features before it.

    Args:
        in_channels: Input channels i.
        growth: Channels g of each new feature; the bottlenecks have 4g.
        num_layers: Number of layers n.
    """

    def __init__(self, in_channels: int, growth: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(
                in_channels + i * growth, 4 * growth, growth, activation="relu", norm="batch"
            )
            for i in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, n·g + i, H, W)``, the newest feature first."""
        features = [x]
        for layer in self.layers:
            features.insert(0, layer(*features))
        return torch.cat(features, dim=1)


class DenseNet(nn.Module):
    """Dense stages, between them transitions that halve width and resolution.

    Args:
        in_channels: Channels of the images, of at least 8×8 pixels with four stages.
        num_classes: Number of classes.
        growth: Channels of each new feature; the stem has twice as many.
        depths: Number of dense layers of each stage.

    Reference:
        Huang et al., CVPR 2017, DenseNet-BC.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, growth: int, depths: Sequence[int]
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = conv3x3(in_channels, width)
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for i, depth in enumerate(depths):
            if i > 0:
                self.transitions.append(_make_transition(width))
                width //= 2
            self.stages.append(DenseStage(width, growth, depth))
            width += depth * growth
        self.norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        first, *others = self.stages
        x = first(self.stem(x))
        for transition, stage in zip(self.transitions, others, strict=True):
            x = stage(transition(x))
        x = self.activation(self.norm(x))
        logits: Tensor = self.head(spatial_mean(x, training=self.training))
        return logits


def _make_transition(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        conv1x1(channels, channels // 2),
        nn.AvgPool2d(2),
    )


@register_model("densenet121", summary="DenseNet-121 for small images", reference=_REFERENCE)
def _densenet121(num_classes: int, input_shape: InputShape) -> DenseNet:
    return DenseNet(input_shape[0], num_classes, growth=32, depths=(6, 12, 24, 16))


@register_model("tiny_densenet", summary="a DenseNet for tests", reference=_REFERENCE)
def _tiny_densenet(num_classes: int, input_shape: InputShape) -> DenseNet:
    return DenseNet(input_shape[0], num_classes, growth=8, depths=(1, 2, 2, 1))
