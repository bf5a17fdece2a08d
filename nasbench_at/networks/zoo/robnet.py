"""RobNets: cells of one genotype, found by a search for robust architectures.

Guo et al., "When NAS Meets Robustness: In Search of Robust Architectures against Adversarial
Attacks", CVPR 2020, as in the authors' code (gmh14/RobNets).

A genotype has a string for each of the four nodes of a cell, and in it a code for each edge that
enters the node: from the two cells before (``input0`` is the older), then from the nodes before it.
The codes are ``00`` no edge, ``01`` separable convolution, ``10`` identity, ``11`` the sum of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import networkx as nx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.layers import conv1x1, conv3x3, spatial_mean
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__ = ["ROBNET_LARGE", "RobNet", "robnet_graph"]

Graph: TypeAlias = "nx.DiGraph[str]"

ROBNET_LARGE = ("11 11", "11 11 11", "01 11 01 10", "11 01 01 01 11")

_REFERENCE = "Guo et al., CVPR 2020; gmh14/RobNets"
_INPUTS = ("input0", "input1")
_NODES = ("node0", "node1", "node2", "node3")
_NO_EDGE = "00"
_OPERATIONS = {"01": "sep_conv", "10": "identity", "11": "sep_conv+identity"}


def robnet_graph(genotype: Sequence[str]) -> Graph:
    """Lays one cell of a genotype out as a graph.

    Args:
        genotype: A string a node, such as :data:`ROBNET_LARGE`.

    Returns:
        A directed acyclic graph of ``input0``, ``input1``, ``node0`` to ``node3`` and ``output``.
        Nodes carry their ``kind``: ``input``, ``sum`` or ``concat``. Edges carry their
        ``operation``: ``sep_conv``, ``identity``, ``sep_conv+identity``, or ``concat`` into the
        output. A code ``00`` is no edge, and a sum that no edge enters is zero.

    Raises:
        ValueError: If the genotype has not four nodes with their edges, a code is unknown, or no
            node takes ``input1``, so that the cell before the last would feed nothing.
    """
    codes = _read_genotype(genotype)
    graph: Graph = nx.DiGraph()
    graph.add_nodes_from(_INPUTS, kind="input")
    graph.add_nodes_from(_NODES, kind="sum")
    graph.add_node("output", kind="concat")
    sources = _INPUTS + _NODES
    for node, row in zip(_NODES, codes, strict=True):
        for source, code in zip(sources, row, strict=False):
            if code != _NO_EDGE:
                graph.add_edge(source, node, operation=_OPERATIONS[code])
        graph.add_edge(node, "output", operation="concat")
    if graph.out_degree("input1") == 0:
        raise ValueError(
            f"no node of genotype {tuple(genotype)} takes input1, the output of the cell before; "
            f"at least one edge from it must not be {_NO_EDGE}"
        )
    return graph


def _read_genotype(genotype: Sequence[str]) -> list[list[str]]:
    if len(genotype) != len(_NODES) or not all(isinstance(row, str) for row in genotype):
        raise ValueError(f"a genotype must be {len(_NODES)} strings, one a node, got {genotype!r}")
    codes = [row.split() for row in genotype]
    for i, (node, row) in enumerate(zip(_NODES, codes, strict=True)):
        num_edges = len(_INPUTS) + i
        if len(row) != num_edges:
            raise ValueError(
                f"{node} of a genotype must have {num_edges} edges, got {len(row)} in "
                f"{genotype[i]!r}"
            )
        for code in row:
            if code != _NO_EDGE and code not in _OPERATIONS:
                raise ValueError(
                    f"an edge of a genotype must be one of {_NO_EDGE}, {', '.join(_OPERATIONS)}, "
                    f"got {code!r} in {node}"
                )
    return codes


class SepConv(nn.Sequential):
    """ReLU, depthwise 3×3, pointwise, BatchNorm, twice; the stride is the first's.

    Args:
        channels: Number of input and of output channels.
        stride: Stride of the first depthwise convolution.
    """

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            conv3x3(channels, channels, stride=stride, groups=channels),
            conv1x1(channels, channels),
            nn.BatchNorm2d(channels, affine=False),
            nn.ReLU(inplace=True),
            conv3x3(channels, channels, groups=channels),
            conv1x1(channels, channels),
            nn.BatchNorm2d(channels, affine=False),
        )


class FactorizedReduce(nn.Module):
    """Halves resolution: half of the channels from the even pixels, half from the odd ones.

    Args:
        in_channels: Input channels i.
        out_channels: Output channels o, an even number.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.activation = nn.ReLU()
        self.even = conv1x1(in_channels, out_channels // 2, stride=2)
        self.odd = conv1x1(in_channels, out_channels // 2, stride=2)
        self.norm = nn.BatchNorm2d(out_channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, i, H, W)`` to ``(N, o, ceil(H/2), ceil(W/2))``."""
        x = self.activation(x)
        height, width = x.shape[2:]
        # From the second row and column on. The authors' code does this for even sizes only; an odd
        # one gets zeros behind its last pixels, so that both halves have one shape.
        shifted = F.pad(x, (-1, width % 2, -1, height % 2))
        output: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return output


class _Sum(nn.Module):
    def __init__(self, *terms: nn.Module) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (term(x) for term in self.terms)
        total: Tensor = sum(others, start=first)
        return total


class _Project(nn.Sequential):
    """ReLU, 1×1 convolution, BatchNorm: brings a cell's input to the width of its nodes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ReLU(),
            conv1x1(in_channels, out_channels),
            nn.BatchNorm2d(out_channels, affine=False),
        )


class RobNetCell(nn.Module):
    """One cell: every node sums what enters it, and the nodes are concatenated.

    Args:
        graph: From :func:`robnet_graph`.
        in_channels: Channels of the older and of the newer input.
        channels: Channels C of each node.
        reduces: Whether the edges from the inputs halve resolution.
        after_reduction: Whether the older input has twice the resolution of the newer.
    """

    def __init__(
        self,
        graph: Graph,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduces: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.stride = 2 if reduces else 1
        self.sources = {node: tuple(graph.predecessors(node)) for node in _NODES}
        self.inputs = nn.ModuleDict()
        for name, width in zip(_INPUTS, in_channels, strict=True):
            if graph.out_degree(name) > 0:
                project = FactorizedReduce if after_reduction and name == "input0" else _Project
                self.inputs[name] = project(width, channels)
        self.edges = nn.ModuleDict()
        for node in _NODES:
            for source in self.sources[node]:
                operation = graph.edges[source, node]["operation"]
                stride = self.stride if source in _INPUTS else 1
                self.edges[f"{source}_{node}"] = _build_edge(operation, channels, stride)

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """Maps the outputs of the two cells before to ``(N, 4C, H, W)``.

        Args:
            older: Shape ``(N, i₀, H, W)``, or twice as high and wide behind a reduction.
            newer: Shape ``(N, i₁, H, W)``. If this cell reduces, so is the output's resolution.
        """
        given = dict(zip(_INPUTS, (older, newer), strict=True))
        values = {name: project(given[name]) for name, project in self.inputs.items()}
        for node in _NODES:
            terms = [
                self.edges[f"{source}_{node}"](values[source]) for source in self.sources[node]
            ]
            if terms:
                values[node] = sum(terms[1:], start=terms[0])
            else:
                values[node] = torch.zeros_like(
                    values["input1"][:, :, :: self.stride, :: self.stride]
                )
        return torch.cat([values[node] for node in _NODES], dim=1)


def _build_edge(operation: str, channels: int, stride: int) -> nn.Module:
    if operation == "sep_conv":
        return SepConv(channels, stride=stride)
    identity = nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if operation == "identity":
        return identity
    return _Sum(SepConv(channels, stride=stride), identity)


class RobNet(nn.Module):
    """A stem and cells that all have one genotype; two of them halve resolution.

    Those are after 1/3 and 2/3 of the depth; the width of the nodes doubles there.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        genotype: Of every cell, see :func:`robnet_graph`.
        channels: Width of the nodes of the first cells, an even number; the stem's is three times
            as large.
        num_cells: Number of cells, at least 3.

    Raises:
        ValueError: If the genotype, the width or the number of cells is not allowed.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        genotype: Sequence[str],
        channels: int,
        num_cells: int,
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even and at least 2, got {channels}")
        if num_cells < 3:
            raise ValueError(f"num_cells must be at least 3, got {num_cells}")
        self.graph = robnet_graph(genotype)
        older = newer = 3 * channels
        self.stem = nn.Sequential(conv3x3(in_channels, newer), nn.BatchNorm2d(newer))
        self.cells = nn.ModuleList()
        reductions = num_cells // 3, 2 * num_cells // 3
        for i in range(num_cells):
            if i in reductions:
                channels *= 2
            cell = RobNetCell(
                self.graph,
                (older, newer),
                channels,
                reduces=i in reductions,
                after_reduction=i - 1 in reductions,
            )
            self.cells.append(cell)
            older, newer = newer, len(_NODES) * channels
        self.head = nn.Linear(newer, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(N, C, H, W)`` in [0, 1] to logits ``(N, num_classes)``."""
        older = newer = self.stem(x)
        for cell in self.cells:
            older, newer = newer, cell(older, newer)
        logits: Tensor = self.head(spatial_mean(newer, training=self.training))
        return logits


@register_model("robnet", summary="a RobNet of any genotype", reference=_REFERENCE)
def _robnet(
    num_classes: int,
    input_shape: InputShape,
    *,
    genotype: Sequence[str] = ROBNET_LARGE,
    channels: int = 36,
    num_cells: int = 20,
) -> RobNet:
    return RobNet(
        input_shape[0], num_classes, genotype=genotype, channels=channels, num_cells=num_cells
    )


def _register(name: str, summary: str, channels: int, num_cells: int) -> None:
    @register_model(name, summary=summary, reference=_REFERENCE)
    def build(num_classes: int, input_shape: InputShape) -> RobNet:
        return _robnet(num_classes, input_shape, channels=channels, num_cells=num_cells)


_register("robnet_large_v1", "RobNet-large with 20 cells", 36, 20)
_register("robnet_large_v2", "RobNet-large with 33 wide cells", 64, 33)
_register("tiny_robnet", "a RobNet for tests", 4, 3)
