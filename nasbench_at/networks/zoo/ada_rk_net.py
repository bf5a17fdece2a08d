"""Networks of Runge-Kutta blocks.

Kim et al., "Robust Neural Networks inspired by Strong Stability Preserving Runge-Kutta methods",
ECCV 2020, with the blocks of the DS-Net authors' code and the depth and width at which the
published number of parameters is met: 62 layers with weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from blocks import ReductionBlock, create_block
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__: list[str] = []

_REFERENCE = "Kim et al., ECCV 2020; d12306/dsnet"
_ADA_RK = ("ssp2", "ada_rk", "ada_rk")


def _build(
    groups: Sequence[str],
    blocks_per_group: int,
    channels: int,
    num_classes: int,
    in_channels: int,
) -> nn.Sequential:
    """Builds stem, groups of blocks with reductions between them, pool and head.

    Raises:
        ValueError: If a group's block is unknown, there is no group, or a group would be empty.
    """
    if not groups:
        raise ValueError("groups must name at least one block, got none")
    if blocks_per_group < 1:
        raise ValueError(f"blocks_per_group must be at least 1, got {blocks_per_group}")
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1)]
    for i, name in enumerate(groups):
        if i > 0:
            layers.append(ReductionBlock(channels, 2 * channels))
            channels *= 2
        layers.extend(create_block(name, channels) for _ in range(blocks_per_group))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    network = nn.Sequential(*layers)
    _initialise(network, blocks_per_group)
    return network


def _initialise(network: nn.Module, blocks_per_group: int) -> None:
    """Draws the weights as the authors' code does, deeper networks from a narrower range."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5) * blocks_per_group)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
            nn.init.zeros_(module.bias)


def _register(
    name: str,
    default_groups: tuple[str, ...],
    summary: str,
    reference: str = _REFERENCE,
    *,
    depth: int = 9,
    width: int = 80,
) -> None:
    @register_model(name, summary=summary, reference=reference)
    def build(
        num_classes: int,
        input_shape: InputShape,
        *,
        groups: Sequence[str] = default_groups,
        blocks_per_group: int = depth,
        channels: int = width,
    ) -> nn.Sequential:
        return _build(groups, blocks_per_group, channels, num_classes, input_shape[0])


_register("ada_rk_net_62", _ADA_RK, "three groups of nine Runge-Kutta blocks, two of them adaptive")
_register("resnet_62", ("residual",) * 3, "three groups of nine pre-activation residual blocks")
_register("ssp2_net_62", ("ssp2",) * 3, "three groups of nine two-stage SSP blocks")
_register("ssp3_net_62", ("ssp3",) * 3, "three groups of nine three-stage SSP blocks")
_register(
    "tiny_ada_rk_net", _ADA_RK, "three groups of one Runge-Kutta block", "ours", depth=1, width=16
)
