"""The modules of a diverse-structured network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import networkx as nx
from torch import Tensor, nn

from blocks.layers import spatial_mean
from nasbench_at.networks.attention import Attention

__all__ = ["DSNet", "RobustModule", "count_parameters"]

Graph: TypeAlias = "nx.DiGraph[str]"


class RobustModule(nn.Module):
    """The weighted sum of atomic blocks, Eq. (5) of the paper.

    Args:
        blocks: Modules that keep the shape of their input.
        columns: The position of each block's weight.
        active: Whether each block takes part; one that does not is not computed, and its
            parameters need no gradient: nothing moves them, and no rank waits for it.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], columns: Sequence[int], active: Sequence[bool]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.columns = tuple(columns)
        self.active = tuple(active)
        for block, takes_part in zip(self.blocks, self.active, strict=True):
            if not takes_part:
                block.requires_grad_(False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` and weights ``(max blocks,)`` to ``(N, C, H, W)``."""
        total: Tensor | None = None
        for block, column, active in zip(self.blocks, self.columns, self.active, strict=True):
            if active:
                output = block(x)
                # Of one type: CUDA's autocast would widen the whole sum to the weight's.
                weight = weights[column].to(output.dtype)
                total = output * weight if total is None else total.addcmul(output, weight)
        assert total is not None  # Attention refuses a module without an active block.
        return total


class DSNet(nn.Module):
    """A diverse-structured network: images in [0, 1] to logits.

    :func:`nasbench_at.build_network` builds it. The attention weights are learned together with the
    blocks but by an optimizer of their own: see :meth:`attention_parameters` and
    :meth:`block_parameters`.

    Args:
        stem: First convolution.
        stages: Robust modules and reductions in order.
        head: Linear layer on the pooled features.
        attention: One row of weights per robust module.
        graph: What the network was built from.

    Attributes:
        is_replayable: That a forward pass is the same operations each time, so that attacks may
            record it: on a GPU as a CUDA graph, on a CPU as a program with fewer passes over
            memory. A block that decides by a count of its own, which nothing here does, needs a
            network on which this is False.
    """

    is_replayable = True

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        attention: Attention,
        graph: Graph,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.head = head
        self.attention = attention
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        rows = iter(self.attention.weights().unbind())
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x, next(rows)) if isinstance(stage, RobustModule) else stage(x)
        logits: Tensor = self.head(spatial_mean(x, training=self.training))
        return logits

    def attention_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the attention logits, fixed or learned."""
        yield from self.attention.parameters()

    def block_parameters(self) -> Iterator[nn.Parameter]:
        """Yields every other parameter: blocks, also masked ones, reductions, stem and head."""
        own = {id(parameter) for parameter in self.attention.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in own)


def count_parameters(network: nn.Module) -> int:
    """Returns a network's number of parameters as the paper counts: without attention logits."""
    counted = network.block_parameters() if isinstance(network, DSNet) else network.parameters()
    return sum(parameter.numel() for parameter in counted)
