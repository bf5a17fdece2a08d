"""The modules behind a graph's nodes: built, and counted."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from blocks import ReductionBlock, create_block
from nasbench_at.networks.flops import FlopCounter

__all__ = ["build_part", "measure_part"]


@lru_cache(maxsize=4096)
def measure_part(
    kind: str,
    in_shape: tuple[int, ...],
    channels: int,
    block: str | None,
    options: str,
    copies: int,
) -> tuple[int, int]:
    """Counts parameters and FLOPs of one part on the meta device: no memory, no arithmetic.

    Args:
        kind: As :func:`build_part` takes it, as are the others.
        in_shape: Shape of its input, without the batch.
        channels: Channels of its output.
        block: For a block: its registered name.
        options: For a block: its options as JSON.
        copies: For a block: how many are stacked.
    """
    with torch.device("meta"):
        part = build_part(
            kind, in_shape[0], channels, block=block, options=json.loads(options), copies=copies
        )
        counter = FlopCounter()
        with counter:
            part.eval()(torch.empty(1, *in_shape))
    num_params = sum(parameter.numel() for parameter in part.parameters())
    return num_params, counter.total


def build_part(
    kind: str,
    in_channels: int,
    channels: int,
    *,
    block: str | None = None,
    options: dict[str, Any] | None = None,
    copies: int = 1,
) -> nn.Module:
    """Builds the module of one stem, block, reduction or head.

    Args:
        kind: The node's kind.
        in_channels: Channels of its input.
        channels: Channels of its output.
        block: For a block: its registered name.
        options: For a block: its options.
        copies: For a block: how many are stacked.

    Raises:
        ValueError: If the kind has no module, or the block cannot be built.
    """
    match kind:
        case "stem":
            return nn.Conv2d(in_channels, channels, 3, padding=1)
        case "head":
            return nn.Linear(in_channels, channels)
        case "reduction":
            return ReductionBlock(in_channels, channels)
        case "block" if block is not None:
            parts = [create_block(block, channels, **(options or {})) for _ in range(copies)]
            return parts[0] if copies == 1 else nn.Sequential(*parts)
    raise ValueError(f"a node of kind {kind!r} and block {block!r} has no module")
