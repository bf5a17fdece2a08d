"""Architectures as networkx graphs, and networks from graphs.

A graph has one node for the input, the stem, every block of every module, every weighted sum, the
reductions, the pool and the head. It holds all that a network is built from, so an edited graph is
a network of its own.

Node attributes: ``kind``; ``channels`` and ``resolution`` of the output; ``num_params`` and
``flops`` (2 × multiply-adds of convolutions and linear layers, for one image); of a block also
``block``, ``options``, ``copies``, ``module`` and ``column`` (where its attention weight stands).
Every edge carries the ``shape`` of the tensor that passes it, without the batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import networkx as nx

from nasbench_at.config.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

    from nasbench_at.networks.ds_net import DSNet

__all__ = [
    "NODE_KINDS",
    "BrokenBlockError",
    "ModuleStage",
    "ReductionStage",
    "Stage",
    "annotate_graph",
    "build_graph",
    "build_network",
    "build_part",
    "count_planned_parameters",
    "find_node",
    "validate_graph",
    "walk_stages",
]

Graph: TypeAlias = "nx.DiGraph[str]"
Shape: TypeAlias = tuple[int, ...]

NODE_KINDS = ("input", "stem", "block", "sum", "reduction", "pool", "head")
_CHANNELS_KEPT = ("block", "sum", "pool")
_REQUIRED = {
    "input": ("channels", "resolution"),
    "block": ("channels", "block", "column", "module"),
}


class BrokenBlockError(ValueError):
    """A block raises an error, or does not keep the shape of its input."""


class ModuleStage(NamedTuple):
    """A robust module: its weighted sum and the blocks that enter it, in order of their columns."""

    sum_node: str
    block_nodes: tuple[str, ...]


class ReductionStage(NamedTuple):
    """A reduction between two modules."""

    node: str


Stage: TypeAlias = ModuleStage | ReductionStage


def build_graph(architecture: Architecture, *, with_costs: bool = True) -> Graph:
    """Lays an architecture out as a graph.

    Args:
        architecture: What to lay out.
        with_costs: Whether to count parameters and FLOPs; without them blocks need not be known,
            and torch is not loaded.

    Returns:
        A directed acyclic graph, annotated as the module's docstring says. ``graph.graph`` holds
        ``num_columns`` (columns of the attention weights), ``attention`` and the total
        ``num_params`` (attention logits not counted).

    Raises:
        ValueError: If a block or one of its options is unknown.

    Example:
        ``graph.remove_node("module01.dense")`` and ``build_network(graph)`` give the network
        without that block.
    """
    if with_costs:
        _check_blocks(architecture.all_blocks)
    graph: Graph = nx.DiGraph(num_columns=architecture.max_blocks, attention=architecture.attention)
    channels, height, width = architecture.input_shape
    graph.add_node("input", kind="input", channels=channels, resolution=(height, width))
    stages = architecture.stage_channels
    previous = _append(graph, "input", "stem", kind="stem", channels=stages[0])
    stage = 0
    for i, names in enumerate(architecture.blocks):
        if i in architecture.reduction_points:
            stage += 1
            previous = _append(
                graph, previous, f"reduction{stage}", kind="reduction", channels=stages[stage]
            )
        previous = _append_module(graph, previous, i, names, architecture)
    previous = _append(graph, previous, "pool", kind="pool", channels=stages[2])
    _append(graph, previous, "head", kind="head", channels=architecture.num_classes)
    annotate_graph(graph, with_costs=with_costs)
    return graph


def _check_blocks(names: Iterable[str]) -> None:
    from blocks import block_info  # torch

    for name in names:
        block_info(name)


def _append(graph: Graph, previous: str, node: str, **attributes: Any) -> str:
    graph.add_node(node, **attributes)
    graph.add_edge(previous, node)
    return node


def _append_module(
    graph: Graph, previous: str, module: int, names: tuple[str, ...], architecture: Architecture
) -> str:
    prefix = f"module{module + 1:02d}"
    channels = graph.nodes[previous]["channels"]
    total = f"{prefix}.sum"
    graph.add_node(total, kind="sum", module=module, channels=channels)
    seen: Counter[str] = Counter()
    for column, name in enumerate(names):
        seen[name] += 1
        suffix = f"_{seen[name]}" if seen[name] > 1 else ""
        node = _append(
            graph,
            previous,
            f"{prefix}.{name}{suffix}",
            kind="block",
            block=name,
            module=module,
            column=column,
            channels=channels,
            options=dict(architecture.block_options.get(name, {})),
            copies=architecture.block_copies.get(name, 1),
        )
        graph.add_edge(node, total)
    return total


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
    # Graphs are laid out, checked and drawn without torch.
    from nasbench_at.networks.attention import Attention
    from nasbench_at.networks.ds_net import DSNet, RobustModule

    graph = build_graph(source) if isinstance(source, Architecture) else source.copy()
    validate_graph(graph)
    annotate_graph(graph)  # an edit may have left the counts as they were
    stages = list(walk_stages(graph))
    modules = [stage for stage in stages if isinstance(stage, ModuleStage)]
    columns = [[graph.nodes[node]["column"] for node in module.block_nodes] for module in modules]
    stem = _build_node(graph, find_node(graph, "stem"))
    attention = Attention(graph.graph["attention"], columns, graph.graph["num_columns"])
    rows = zip(columns, attention.active, strict=True)
    built: list[nn.Module] = []
    for stage in stages:
        if isinstance(stage, ModuleStage):
            row, active = next(rows)
            blocks = [_build_node(graph, node) for node in stage.block_nodes]
            built.append(RobustModule(blocks, row, [active[column] for column in row]))
        else:
            built.append(_build_node(graph, stage.node))
    head = _build_node(graph, find_node(graph, "head"))
    return DSNet(stem, built, head, attention, graph)


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
    from torch import nn

    from blocks import ReductionBlock, create_block

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


def annotate_graph(graph: Graph, *, with_costs: bool = True) -> None:
    """Fills in resolutions, edge shapes, parameters and FLOPs from the nodes' own attributes.

    Args:
        graph: What to annotate.
        with_costs: Whether to count parameters and FLOPs.
    """
    for node in nx.topological_sort(graph):
        attributes = graph.nodes[node]
        inputs = [graph.edges[edge]["shape"] for edge in graph.in_edges(node)]
        shape = _output_shape(graph, node, inputs)
        attributes["resolution"] = shape[1:] if len(shape) == 3 else ()
        if with_costs:
            attributes["num_params"], attributes["flops"] = _cost_of(graph, node, inputs)
        for edge in graph.out_edges(node):
            graph.edges[edge]["shape"] = shape
    if with_costs:
        graph.graph["num_params"] = sum(nx.get_node_attributes(graph, "num_params").values())


def _output_shape(graph: Graph, node: str, inputs: list[Shape]) -> Shape:
    attributes = graph.nodes[node]
    channels: int = attributes["channels"]
    match attributes["kind"]:
        case "input":
            return (channels, *attributes["resolution"])
        case "pool":
            return (channels, 1, 1)
        case "head":
            return (channels,)
        case "reduction":
            return (channels, *(-(-size // 2) for size in inputs[0][1:]))
        case _:
            return (channels, *inputs[0][1:])


def _cost_of(graph: Graph, node: str, inputs: list[Shape]) -> tuple[int, int]:
    attributes = graph.nodes[node]
    if attributes["kind"] in ("input", "sum", "pool"):
        return 0, 0
    return _measure_part(
        attributes["kind"],
        inputs[0] if attributes["kind"] != "head" else inputs[0][:1],
        attributes["channels"],
        attributes.get("block"),
        json.dumps(attributes.get("options", {}), sort_keys=True),
        attributes.get("copies", 1),
    )


@lru_cache(maxsize=4096)
def _measure_part(
    kind: str, in_shape: Shape, channels: int, block: str | None, options: str, copies: int
) -> tuple[int, int]:
    """Counts parameters and FLOPs of a part without memory for them; its options are JSON."""
    import torch

    from nasbench_at.networks.flops import FlopCounter

    counter = FlopCounter()
    with torch.device("meta"):
        with _blamed_on(block, in_shape, but=(ValueError,)):  # which says what is not allowed
            part = build_part(
                kind, in_shape[0], channels, block=block, options=json.loads(options), copies=copies
            )
        with _blamed_on(block, in_shape), counter, torch.no_grad():
            shape = tuple(part.eval()(torch.empty(1, *in_shape)).shape[1:])
    if block is not None and shape != in_shape:
        raise _broken(block, in_shape, f"its output must keep the shape, got {shape}")
    return sum(parameter.numel() for parameter in part.parameters()), counter.total


@contextmanager
def _blamed_on(
    block: str | None, in_shape: Shape, but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Names the block that fails; one of a user may raise anything."""
    try:
        yield
    except but:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise _broken(block, in_shape, reason) from error


def _broken(block: str | None, in_shape: Shape, reason: str) -> BrokenBlockError:
    return BrokenBlockError(
        f"block {block!r} fails on features of shape {in_shape}: {reason}; "
        f"blocks.testing.check_block({block!r}) tries it alone"
    )


def validate_graph(graph: Graph) -> None:
    """Checks that a graph describes a network.

    Raises:
        ValueError: At the first thing wrong; the message names the node and what is allowed.
    """
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(graph))
        raise ValueError(f"the graph has a cycle through {cycle}; a network must be acyclic")
    for node, attributes in graph.nodes(data=True):
        if attributes.get("kind") not in NODE_KINDS:
            raise ValueError(
                f"node {node!r} has kind {attributes.get('kind')!r}; it must be one of "
                f"{', '.join(NODE_KINDS)}"
            )
        for key in _REQUIRED.get(attributes["kind"], ("channels",)):
            if key not in attributes:
                raise ValueError(f"node {node!r} of kind {attributes['kind']!r} needs a {key!r}")
        if attributes["kind"] == "block":
            _check_blocks([attributes["block"]])
    stages = list(walk_stages(graph))
    if not any(isinstance(stage, ModuleStage) for stage in stages):
        raise ValueError("the graph has no module between stem and pool; it needs at least one")
    _check_all_reached(graph, stages)
    _check_shapes(graph)


def walk_stages(graph: Graph) -> Iterator[Stage]:
    """Walks the graph from stem to pool and yields its modules and reductions in order.

    Raises:
        ValueError: If the chain of modules is broken; the message names the node.
    """
    current = _only_successor(graph, find_node(graph, "input"), "stem")
    while True:
        following = sorted(graph.successors(current))
        kinds = {graph.nodes[node]["kind"] for node in following}
        if kinds == {"block"}:
            stage = _read_module(graph, current, following)
            yield stage
            current = stage.sum_node
        elif kinds == {"reduction"} and len(following) == 1:
            yield ReductionStage(following[0])
            current = following[0]
        elif kinds == {"pool"} and len(following) == 1:
            _only_successor(graph, following[0], "head")
            return
        else:
            raise ValueError(
                f"node {current!r} leads to {following or 'nothing'}; it must lead to the blocks "
                "of one module, one reduction, or the pool"
            )


def _read_module(graph: Graph, current: str, block_nodes: list[str]) -> ModuleStage:
    total = _only_successor(graph, block_nodes[0], "sum")
    for node in block_nodes:
        if _only_successor(graph, node, "sum") != total:
            raise ValueError(
                f"blocks {block_nodes[0]!r} and {node!r} share their input {current!r} but enter "
                "different sums; the blocks of a module enter one"
            )
    for node in graph.predecessors(total):
        if node not in block_nodes:
            raise ValueError(
                f"sum {total!r} also takes {node!r}, which does not start from {current!r} as the "
                "other blocks of its module do"
            )
    ordered = sorted(block_nodes, key=lambda node: int(graph.nodes[node]["column"]))
    columns = [graph.nodes[node]["column"] for node in ordered]
    if len(set(columns)) < len(columns):
        raise ValueError(f"blocks of {total!r} have columns {columns}; each needs one of its own")
    return ModuleStage(total, tuple(ordered))


def find_node(graph: Graph, kind: str) -> str:
    """Returns the one node of a kind.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = [node for node in graph if graph.nodes[node]["kind"] == kind]
    if len(found) != 1:
        raise ValueError(f"the graph must have one node of kind {kind!r}, got {found or 'none'}")
    return found[0]


def _only_successor(graph: Graph, node: str, kind: str) -> str:
    following = list(graph.successors(node))
    if len(following) != 1 or graph.nodes[following[0]]["kind"] != kind:
        raise ValueError(
            f"node {node!r} leads to {following or 'nothing'}; it must lead to one {kind}"
        )
    return following[0]


def _check_all_reached(graph: Graph, stages: list[Stage]) -> None:
    reached = {find_node(graph, kind) for kind in ("input", "stem", "pool", "head")}
    for stage in stages:
        reached.update(
            (stage.sum_node, *stage.block_nodes) if isinstance(stage, ModuleStage) else stage
        )
    for node in graph:
        if node not in reached:
            raise ValueError(f"node {node!r} is not on the way from the input to the head")


def _check_shapes(graph: Graph) -> None:
    shapes: dict[str, Shape] = {}
    for node in nx.topological_sort(graph):
        attributes = graph.nodes[node]
        for source in graph.predecessors(node):
            incoming = graph.nodes[source]["channels"]
            if attributes["kind"] in _CHANNELS_KEPT and incoming != attributes["channels"]:
                raise ValueError(
                    f"node {node!r} has {attributes['channels']} channels but receives {incoming} "
                    f"from {source!r}; a {attributes['kind']} keeps its channels"
                )
        shapes[node] = _output_shape(graph, node, [shapes[n] for n in graph.predecessors(node)])
        for _, target, edge in graph.out_edges(node, data=True):
            shape = tuple(edge.get("shape", shapes[node]))
            if shape != shapes[node]:
                raise ValueError(
                    f"edge {node!r} -> {target!r} is marked with shape {shape} but "
                    f"{node!r} puts out {shapes[node]}; annotate_graph renews the marks"
                )


def count_planned_parameters(architecture: Architecture) -> int:
    """Counts the parameters of a network without building it; attention logits not counted."""
    num_params: int = build_graph(architecture).graph["num_params"]
    return num_params
