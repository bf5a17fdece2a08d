"""Residual networks for small images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the CIFAR form of
kuangliu/pytorch-cifar: a 3×3 stem of stride 1 and no max-pool. With smooth activations it is the
network of Xie et al., "Smooth Adversarial Training", 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, make_activation, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__ = ["ResNet"]

_STAGES = (64, 128, 256, 512)
_DEPTHS_50 = (3, 4, 6, 3)


class ResNet(nn.Module):
    """A post-activation residual network: images in [0, 1] to logits.

    Weights have PyTorch's default initialisation. A trainable activation is one of each block, used
    at all its places.

    Args:
        kind: Which of torchvision's blocks.
        depths: Number of blocks of each stage; every stage but the first halves resolution.
        widths: Width of each stage, before the block's expansion.
        num_classes: Number of classes.
        in_channels: Channels of the images.
        activation: A name of :func:`blocks.layers.make_activation`.
    """

    def __init__(
        self,
        kind: Literal["basic", "bottleneck"],
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        num_classes: int,
        in_channels: int,
        activation: str = "relu",
    ) -> None:
        # Slow to import, and only needed here; torchvision comes without types. Importing computes,
        # which fails with torch 2.6 if the network is built on the meta device.
        with torch.device("cpu"):
            from torchvision.models.resnet import (  # type: ignore[import-untyped]
                BasicBlock,
                Bottleneck,
            )

        super().__init__()
        block_class = BasicBlock if kind == "basic" else Bottleneck
        self.conv1 = conv3x3(in_channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = make_activation(activation, norm="batch")
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                out_channels = width * block_class.expansion
                shortcut = _shortcut(channels, out_channels, stride)
                block = block_class(channels, width, stride, shortcut)
                block.add_module("relu", make_activation(activation, norm="batch"))
                blocks.append(block)
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        features = self.blocks(self.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.fc(spatial_mean(features, training=self.training))
        return logits


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        conv1x1(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)
    )


def _register(
    name: str,
    kind: Literal["basic", "bottleneck"],
    depths: Sequence[int],
    summary: str,
    reference: str = "He et al., CVPR 2016",
    widths: Sequence[int] = _STAGES,
) -> None:
    @register_model(name, summary=summary, reference=reference)
    def build(num_classes: int, input_shape: InputShape) -> ResNet:
        return ResNet(kind, depths, widths, num_classes=num_classes, in_channels=input_shape[0])


_register("resnet50", "bottleneck", _DEPTHS_50, "50 layers of bottlenecks, CIFAR form")


@register_model(
    "sat_resnet50",
    summary="ResNet-50 with a smooth activation in place of every ReLU",
    reference="Xie et al., 2020",
)
def _sat_resnet50(num_classes: int, input_shape: InputShape, *, activation: str = "silu") -> ResNet:
    return ResNet(
        "bottleneck",
        _DEPTHS_50,
        _STAGES,
        num_classes=num_classes,
        in_channels=input_shape[0],
        activation=activation,
    )


_register("resnet18", "basic", (2, 2, 2, 2), "18 layers of basic blocks, CIFAR form")
_register(
    "tiny_resnet", "basic", (1, 1, 1), "three basic blocks, 16 to 64 wide", "ours", (16, 32, 64)
)
