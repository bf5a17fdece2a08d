"""``nasbench-at graph``: lay out, edit, draw and export a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config import DS_NET_FIELDS, ModelOptions
from nasbench_at.config.allowed_values import Name, NewFile
from nasbench_at.config.architecture import Architecture, NumParameters
from nasbench_at.config.catalogue import check_network_names
from nasbench_at.config.suggestions import near_names

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["GraphArguments", "run_graph"]

Graph: TypeAlias = "nx.DiGraph[str]"

DATA_SUFFIXES = (".json", ".graphml", ".dot")
DRAWING_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class GraphArguments:
    """Arguments of ``nasbench-at graph``.

    Attributes:
        model: ds_net, which flags of its own describe, or a network by name that has a graph.
        model_options: Options of a network by name.
        architecture: A DS-Net, or only the classes and images of a network by name.
        match_parameters: Choose init_channels closest to this number of parameters.
        remove: Nodes to leave out, such as module01.dense.
        plugins: Python files that register blocks.
        out: Write the graph; the suffix decides: png, pdf, svg, graphml, json or dot.
    """

    model: Name = "ds_net"
    model_options: ModelOptions = field(default_factory=dict)
    architecture: Architecture = field(default_factory=Architecture)
    match_parameters: NumParameters | None = None
    remove: tuple[Name, ...] = ()
    plugins: tuple[Name, ...] = ()
    out: Annotated[Path, NewFile((*DATA_SUFFIXES, *DRAWING_SUFFIXES))] | None = None


def run_graph(words: Sequence[str]) -> int:
    """Lay out a network as a graph: count, edit, draw and export it."""
    arguments = parse_flags(GraphArguments, words, "graph", run_graph.__doc__)
    with bad_input():
        blocks = chain.from_iterable(arguments.architecture.blocks)
        check_network_names(arguments.model, blocks, arguments.plugins)
    from nasbench_at.commands.console import stdout
    from nasbench_at.training.plugins import load_plugins

    with bad_input(), one_line_warnings():
        load_plugins(arguments.plugins)
        graph, description = (
            _lay_out(arguments) if arguments.model == "ds_net" else _find_graph(arguments)
        )
    if arguments.out is not None:
        _write(graph, arguments.out)
    stdout.say(description)
    if arguments.out is not None:
        stdout.say(f"written to {arguments.out}")
    return 0


def _lay_out(arguments: GraphArguments) -> tuple[Graph, str]:
    """The graph of the architecture that the flags describe, edited, and a line about it."""
    from nasbench_at.networks.graph import build_graph
    from nasbench_at.networks.widths import match_parameters

    if arguments.model_options:
        raise ValueError("--model-options go with a --model by name, got them with ds_net")
    architecture = arguments.architecture
    if arguments.match_parameters is not None:
        architecture = match_parameters(architecture, arguments.match_parameters)
    graph = _edit(build_graph(architecture), arguments.remove)
    origin = f"init_channels {architecture.init_channels}, architecture {architecture.hash}"
    return graph, f"{_count(graph)}, {origin}"


def _find_graph(arguments: GraphArguments) -> tuple[Graph, str]:
    """The graph that a network by name holds, edited if it is a DS-Net's, and a line about it."""
    import torch

    from nasbench_at.networks.ds_net import count_parameters
    from nasbench_at.networks.zoo import create_model

    architecture, default = vars(arguments.architecture), vars(Architecture())
    own = {"match_parameters": arguments.match_parameters is not None}
    own |= {name: architecture[name] != default[name] for name in DS_NET_FIELDS & {*default}}
    for name in sorted(name for name, is_given in own.items() if is_given):
        flag = f"--{name.replace('_', '-')}"
        raise ValueError(f"{flag} goes with model ds_net, got it with {arguments.model!r}")
    with torch.device("meta"):
        network = create_model(
            arguments.model,
            architecture["num_classes"],
            architecture["input_shape"],
            **arguments.model_options,
        )
    graph: Graph | None = getattr(network, "graph", None)
    if graph is None:
        raise ValueError(f"model {arguments.model!r} has no graph; DS-Nets and RobNets have one")
    if "attention" in graph.graph:
        graph = _edit(graph, arguments.remove)
        return graph, _count(graph)
    if arguments.remove:
        raise ValueError(f"--remove goes with DS-Nets, got it with {arguments.model!r}")
    num_params = count_parameters(network)
    return graph, f"a cell of {len(graph)} nodes; {num_params:,} parameters in the whole network"


def _write(graph: Graph, path: Path) -> None:
    if path.suffix in DATA_SUFFIXES:
        from nasbench_at.networks.export import write_graph

        write_graph(graph, path)
        return
    from analysis.network_drawing import draw_cell, draw_graph
    from analysis.style import write_figure

    write_figure(draw_graph(graph) if "attention" in graph.graph else draw_cell(graph), path)


def _edit(graph: Graph, remove: Sequence[str]) -> Graph:
    from nasbench_at.networks.graph import annotate_graph, validate_graph

    for node in remove:
        if node not in graph:
            near = near_names(node, graph) or ", ".join(list(graph)[:5])
            raise ValueError(f"the graph has no node {node!r}; there are {near}")
        graph.remove_node(node)
    validate_graph(graph)
    annotate_graph(graph)
    return graph


def _count(graph: Graph) -> str:
    flops = sum(attributes["flops"] for _, attributes in graph.nodes(data=True))
    return (
        f"{len(graph)} nodes, {graph.graph['num_params']:,} parameters, {flops:,} FLOPs "
        "(2 x multiply-adds, one image)"
    )
