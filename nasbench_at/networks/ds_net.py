"""The diverse-structured network, built by walking a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import networkx as nx
from torch import Tensor, nn

from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.attention import Attention
from nasbench_at.networks.graph import (
    ModuleStage,
    annotate_graph,
    build_graph,
    find_node,
    validate_graph,
    walk_stages,
)
from nasbench_at.networks.parts import build_part

__all__ = ["DSNet", "RobustModule", "build_network", "count_parameters"]

Graph: TypeAlias = "nx.DiGraph[str]"


class RobustModule(nn.Module):
    """The weighted sum of atomic blocks, Eq. (5) of the paper.

    Args:
        blocks: Modules that keep the shape of their input.
        slots: The position of each block's weight.
        active: Whether each block takes part; one that does not is not computed, and its
            parameters need no gradient: nothing moves them, and no rank waits for it.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], slots: Sequence[int], active: Sequence[bool]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.slots = tuple(slots)
        self.active = tuple(active)
        for block, takes_part in zip(self.blocks, self.active, strict=True):
            if not takes_part:
                block.requires_grad_(False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` and weights ``(max blocks,)`` to ``(N, C, H, W)``."""
        total: Tensor | None = None
        for block, slot, active in zip(self.blocks, self.slots, self.active, strict=True):
            if active:
                output = block(x)
                # Of one type: CUDA's autocast would widen the whole sum to the weight's.
                weight = weights[slot].to(output.dtype)
                total = output * weight if total is None else total.addcmul(output, weight)
        assert total is not None  # Attention refuses a module without an active block.
        return total


class DSNet(nn.Module):
    """A diverse-structured network: images in [0, 1] to logits.

    Built by :func:`build_network`. The attention weights are learned together with the blocks but
    by an optimizer of their own: see :meth:`attention_parameters` and :meth:`block_parameters`.

    Args:
        stem: First convolution.
        stages: Robust modules and reductions in order.
        head: Linear layer on the pooled features.
        attention: One row of weights per robust module.
        graph: What the network was built from.
    """

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
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits

    def attention_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the attention logits, fixed or learned."""
        yield from self.attention.parameters()

    def block_parameters(self) -> Iterator[nn.Parameter]:
        """Yields every other parameter: blocks, also masked ones, reductions, stem and head."""
        own = {id(parameter) for parameter in self.attention.parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in own)


def build_network(source: Architecture | Graph) -> DSNet:
    """Builds a network from an architecture or from its, possibly edited, graph.

    Weights are PyTorch's default initialisation and, like the initial attention logits, come from
    the global generator: call ``torch.manual_seed`` first to repeat a network.

    Args:
        source: An architecture, or a graph as :func:`build_graph` lays it out.

    Returns:
        The network in training mode.

    Raises:
        ValueError: If the graph describes no network; the message names the node.
    """
    graph = build_graph(source) if isinstance(source, Architecture) else source.copy()
    validate_graph(graph)
    annotate_graph(graph)  # an edit may have left the counts as they were
    stages = list(walk_stages(graph))
    modules = [stage for stage in stages if isinstance(stage, ModuleStage)]
    slots = [[graph.nodes[node]["slot"] for node in module.block_nodes] for module in modules]
    stem = _build_node(graph, find_node(graph, "stem"))
    attention = Attention(graph.graph["attention"], slots, graph.graph["num_slots"])
    active = iter(attention.active)
    built = [
        _build_module(graph, stage, next(active))
        if isinstance(stage, ModuleStage)
        else _build_node(graph, stage.node)
        for stage in stages
    ]
    head = _build_node(graph, find_node(graph, "head"))
    return DSNet(stem, built, head, attention, graph)


def count_parameters(network: nn.Module) -> int:
    """Returns a network's number of parameters as the paper counts: without attention logits."""
    total = sum(parameter.numel() for parameter in network.parameters())
    if isinstance(network, DSNet):
        total -= sum(parameter.numel() for parameter in network.attention_parameters())
    return total


def _build_module(graph: Graph, stage: ModuleStage, active: Sequence[bool]) -> RobustModule:
    slots = [graph.nodes[node]["slot"] for node in stage.block_nodes]
    blocks = [_build_node(graph, node) for node in stage.block_nodes]
    return RobustModule(blocks, slots, [active[slot] for slot in slots])


def _build_node(graph: Graph, node: str) -> nn.Module:
    attributes = graph.nodes[node]
    (source,) = graph.predecessors(node)
    return build_part(
        attributes["kind"],
        graph.nodes[source]["channels"],
        attributes["channels"],
        block=attributes.get("block"),
        options=attributes.get("options"),
        copies=attributes.get("copies", 1),
    )
