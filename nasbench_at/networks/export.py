"""Graphs of networks as files: JSON, which can be read back, and GraphML and DOT."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import networkx as nx

from nasbench_at.config.architecture import AttentionSpec
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["read_graph", "write_graph"]

Graph: TypeAlias = "nx.DiGraph[str]"

_FORMAT = "nasbench-at graph 3"
_NAMES = {"id", "source", "target"}  # of node-link data
_TUPLES = {"resolution", "shape"}  # attributes that JSON makes lists of
_TIMES = " \N{MULTIPLICATION SIGN} "
_DOT_STYLES = {"sum": "shape=circle, width=0.3, fixedsize=true", "reduction": "shape=trapezium"}


def write_graph(graph: Graph, path: str | Path) -> None:
    """Writes a graph in the format that the file's suffix names, whole or not at all.

    ``.json`` can be read back by :func:`read_graph`; ``.graphml`` and ``.dot`` carry the same nodes
    and edges for other programs.

    Args:
        graph: As :func:`nasbench_at.networks.graph.build_graph` lays it out.
        path: The file to write; one that is there is replaced.

    Raises:
        ValueError: If the suffix is not one of these, or an attribute cannot be written.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(
            f"a graph is written as one of {', '.join(_FORMATS)}, got suffix {path.suffix!r} of "
            f"{path.name!r}"
        )
    write_atomically(path, _FORMATS[suffix](graph))


def read_graph(path: str | Path) -> Graph:
    """Reads a graph that :func:`write_graph` wrote as JSON.

    Args:
        path: A ``.json`` file.

    Returns:
        A graph with the nodes, edges and attributes of the one written, in the same order. Tuples
        among attributes of one's own have become lists.

    Raises:
        ValueError: If the file cannot be read or does not hold a graph.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8"))
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ValueError(f"it is not marked with format {_FORMAT!r}")
        return _graph_of(data)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read {str(path)!r} as a graph: {error}") from error
    except KeyError as error:
        raise ValueError(f"cannot read {str(path)!r} as a graph: it lacks {error}") from error


def _json_bytes(graph: Graph) -> bytes:
    """Node-link data of networkx, with a mark of its own."""
    for values in (*graph.nodes.values(), *graph.edges.values()):
        for key in _NAMES & values.keys():
            raise ValueError(f"an attribute cannot be named {key!r}, got {values[key]!r}")
    data = {"format": _FORMAT, **nx.node_link_data(graph, edges="edges")}
    return (json.dumps(data, indent=1, default=_to_plain) + "\n").encode()


def _graph_of(data: Mapping[str, Any]) -> Graph:
    attributes = data["graph"]
    graph: Graph = nx.DiGraph(nx.node_link_graph({**data, "directed": True}, edges="edges"))
    for node in sorted(graph.nodes - {node["id"] for node in data["nodes"]}):
        raise ValueError(f"an edge names node {node!r}, which is not there")
    if "attention" in attributes:
        graph.graph["attention"] = AttentionSpec(**attributes["attention"])
    for values in (*graph.nodes.values(), *graph.edges.values()):
        for key in _TUPLES & values.keys():
            values[key] = tuple(values[key])
    return graph


def _to_plain(value: Any) -> Any:
    if isinstance(value, AttentionSpec):
        return asdict(value)
    raise ValueError(
        "an attribute of a graph must be made of numbers, text, lists, tuples and dicts with text "
        f"as keys, got {value!r}"
    )


def _graphml_bytes(graph: Graph) -> bytes:
    """GraphML, which has scalars only: everything else is JSON text."""
    flat: Graph = nx.DiGraph(**_scalars(graph.graph))
    flat.add_nodes_from((node, _scalars(values)) for node, values in graph.nodes(data=True))
    flat.add_edges_from((a, b, _scalars(values)) for a, b, values in graph.edges(data=True))
    return ("\n".join(nx.generate_graphml(flat)) + "\n").encode()


def _scalars(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        if isinstance(value, bool | int | float | str)
        else json.dumps(value, default=_to_plain)
        for key, value in attributes.items()
    }


def _dot_bytes(graph: Graph) -> bytes:
    """DOT: left to right, a cluster a module."""
    clusters: dict[int | None, list[str]] = defaultdict(list)
    for node, values in graph.nodes(data=True):
        clusters[values.get("module")].append(f"{_quote(node)} [{_dot_attributes(node, values)}];")
    lines = ["digraph network {", "rankdir=LR;", "node [shape=box, fontname=Helvetica];"]
    lines += clusters.pop(None, [])  # what belongs to no module
    for module, nodes in clusters.items():
        lines += [f"subgraph cluster_{module} {{", f'label="module {int(module or 0) + 1}";']
        lines += [*nodes, "}"]
    for source, target, values in graph.edges(data=True):
        label = f" [label={_quote(values['operation'])}]" if "operation" in values else ""
        lines.append(f"{_quote(source)} -> {_quote(target)}{label};")
    return "\n".join([*lines, "}", ""]).encode()


def _dot_attributes(node: str, attributes: Mapping[str, Any]) -> str:
    if "channels" not in attributes:  # of a cell, whose operations are edges
        return f"label={_quote(node)}"
    kind = attributes["kind"]
    style = _DOT_STYLES.get(kind, "shape=box")
    if kind == "sum":
        return f'label="+", {style}'
    copies = attributes.get("copies", 1)
    sizes = attributes["channels"], *attributes.get("resolution", ())
    lines = [
        attributes.get("block", kind) + (f"{_TIMES}{copies}" if copies > 1 else ""),
        _TIMES.join(map(str, sizes)),
        f"{attributes.get('num_params', 0):,} parameters",
    ]
    return f"label={_quote(chr(10).join(lines))}, {style}"


def _quote(text: str) -> str:
    r"""Quotes a DOT string; inside, backslash and quote are escaped and a line break is ``\n``."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


_FORMATS: Mapping[str, Callable[[Graph], bytes]] = {
    ".json": _json_bytes,
    ".graphml": _graphml_bytes,
    ".dot": _dot_bytes,
}
