"""The pre-activation ResNet of adversarial training on small images.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016, with 3×3 stem and without
max-pooling, as in the code of Fast AT (Wong et al., ICLR 2020; locuslab/fast_adversarial): unlike
in the code that it derives from, kuangliu/pytorch-cifar, a BatchNorm and a ReLU end the network.
Where width or resolution change, the shortcut takes the activated input, as the paper has it and
kuangliu's code does; Fast AT's gives it the raw one, which is the option ``raw_shortcut``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from blocks.layers import conv3x3, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model
from nasbench_at.networks.zoo.wide_resnet import stack_blocks

__all__ = ["PreActResNet"]

_REFERENCE = "He et al., ECCV 2016; Wong et al., ICLR 2020"


class PreActResNet(nn.Module):
    """A 3×3 stem, stages of pre-activation blocks, each after the first halving resolution.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        widths: Channels of each stage; the stem has those of the first.
        depths: Number of blocks of each stage.
        raw_shortcut: As in :class:`PreActBlock <nasbench_at.networks.zoo.wide_resnet.PreActBlock>`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        raw_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.stem = conv3x3(in_channels, widths[0])
        self.blocks = stack_blocks(widths[0], widths, depths, raw_shortcut=raw_shortcut)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        x = self.activation(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(spatial_mean(x, training=self.training))
        return logits


def _register(name: str, summary: str, widths: Sequence[int], depths: Sequence[int]) -> None:
    @register_model(name, summary=summary, reference=_REFERENCE)
    def build(
        num_classes: int, input_shape: InputShape, *, raw_shortcut: bool = False
    ) -> PreActResNet:
        channels = input_shape[0]
        return PreActResNet(
            channels, num_classes, widths=widths, depths=depths, raw_shortcut=raw_shortcut
        )


_register(
    "preact_resnet18",
    "pre-activation ResNet-18 for small images, the network of Fast AT",
    (64, 128, 256, 512),
    (2, 2, 2, 2),
)
_register("tiny_preact_resnet", "a pre-activation ResNet for tests", (8, 16, 32), (2, 1, 1))
