"""Where everything lies in the drawing of a DS-Net's graph.

Lengths are inches; x grows to the right and y downwards, as one reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, pairwise
from math import ceil
from typing import NamedTuple, TypeAlias

import networkx as nx
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from nasbench_at.networks.graph import ModuleStage, find_node, walk_stages

__all__ = [
    "BAND_TITLE",
    "FONT",
    "FORK",
    "MODULE_TITLE",
    "TIMES",
    "Graph",
    "GraphLayout",
    "Point",
    "center",
    "layout_graph",
    "node_label",
    "size_label",
    "text_width",
]

Graph: TypeAlias = "nx.DiGraph[str]"
Point: TypeAlias = tuple[float, float]

FONT = FontProperties(family="DejaVu Sans", size=7)
"""Ships with matplotlib, so is everywhere."""
TIMES = " \N{MULTIPLICATION SIGN} "
BAND_TITLE, MODULE_TITLE = 0.19, 0.14

_MAX_ONE_ROW, _MAX_MODULES = 4, 5  # modules of a network in one row, and of a row of many
_MARGIN, _GAP, _ROW_GAP, _RETURN = 0.22, 0.18, 0.26, 0.14
_NODE_WIDTH, _BLOCK_HEIGHT, _BLOCK_GAP = 0.24, 0.2, 0.055
FORK, _FAN, _SUM = 0.08, 0.17, 0.155  # before a module's fork, beside its blocks, its sum
_MODULE_PAD, _BAND_PAD = 0.075, 0.055


@dataclass
class GraphLayout:
    """Where everything lies.

    Attributes:
        nodes: The box of every node of the graph.
        modules: The frames of robust modules, in order.
        bands: The grounds on which a row's modules stand; a stage's first has its label.
        trunk: The lines from module to module, as corners.
        width: Of the network and a margin.
        height: Likewise.
    """

    nodes: dict[str, Bbox] = field(default_factory=dict)
    modules: list[tuple[ModuleStage, Bbox]] = field(default_factory=list)
    bands: list[tuple[str, Bbox]] = field(default_factory=list)
    trunk: list[list[Point]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


class _Placed(NamedTuple):
    """A module or node, its box, and where the line to its row turns back."""

    item: ModuleStage
    box: Bbox
    turn: float


def layout_graph(graph: Graph) -> GraphLayout:
    """Places every node of a graph: in one row, or in a row per stage and more for long stages.

    Args:
        graph: As :func:`nasbench_at.networks.graph.build_graph` lays it out, edited or not.

    Returns:
        Boxes that do not overlap (blocks and sums lie inside their module).

    Raises:
        ValueError: If the chain of modules is broken; the message names the node.
    """
    rows = _rows(graph)
    labels = [node_label(graph, node) for row in rows for item in row for node in item.block_nodes]
    block_width = max(map(text_width, labels)) + 0.12
    others = [node_label(graph, item.sum_node) for row in rows for item in row]
    node_height = max(map(text_width, others)) + 0.2
    # Modules of all rows are aligned, so what stands before them is flush right.
    leads = [[bool(item.block_nodes) for item in row].index(True) for row in rows]
    layout = GraphLayout()
    placed: list[_Placed] = []
    bottom = _MARGIN / 2 - _ROW_GAP
    for row, lead in zip(rows, leads, strict=True):
        half_node = node_height / 2 if any(not item.block_nodes for item in row) else 0.0
        half_stack = max(map(_stack_height, row)) / 2
        title = MODULE_TITLE + (BAND_TITLE if lead else _BAND_PAD)
        x = _MARGIN + (max(leads) - lead) * (_NODE_WIDTH + _GAP)
        y = bottom + _ROW_GAP + max(half_stack + title, half_node)
        for item in row:
            if item.block_nodes:
                box = _place_module(layout, item, x, y, block_width)
            else:
                box = Bbox.from_bounds(x, y - node_height / 2, _NODE_WIDTH, node_height)
                layout.nodes[item.sum_node] = box
            placed.append(_Placed(item, box, bottom + _ROW_GAP / 2))
            x = box.x1 + _GAP
        layout.bands += _bands(graph, placed[-len(row) :])
        layout.width = max(layout.width, x - _GAP + _MARGIN)
        bottom = y + max(half_stack + _MODULE_PAD + _BAND_PAD, half_node)
    layout.height = bottom + _MARGIN / 2
    layout.trunk += [_line(layout, *pair) for pair in pairwise(placed)]
    return layout


def _rows(graph: Graph) -> list[list[ModuleStage]]:
    """Breaks the chain of a network into rows; what is no module is one without blocks."""
    names: list[str] = [find_node(graph, kind) for kind in ("input", "stem", "pool", "head")]
    start, second, last, end = (ModuleStage(name, ()) for name in names)
    stages = [
        stage if isinstance(stage, ModuleStage) else ModuleStage(stage.node, ())
        for stage in walk_stages(graph)
    ]
    chain = [start, second, *stages, last, end]
    if sum(bool(item.block_nodes) for item in chain) <= _MAX_ONE_ROW:
        return [chain]
    rows: list[list[ModuleStage]] = []
    for is_module, group in groupby(chain, key=lambda item: bool(item.block_nodes)):
        items = list(group)
        if is_module:
            size = ceil(len(items) / ceil(len(items) / _MAX_MODULES))  # of about equal length
            rows[-1] += items[:size]
            rows += [items[i : i + size] for i in range(size, len(items), size)]
        else:
            rows.append(items)
    tail = rows.pop()
    rows[-1] += tail
    return rows


def _place_module(
    layout: GraphLayout, stage: ModuleStage, left: float, axis: float, block_width: float
) -> Bbox:
    top = axis - _stack_height(stage) / 2
    for i, node in enumerate(stage.block_nodes):
        y = top + i * (_BLOCK_HEIGHT + _BLOCK_GAP)
        layout.nodes[node] = Bbox.from_bounds(left + FORK + _FAN, y, block_width, _BLOCK_HEIGHT)
    x = left + FORK + 2 * _FAN + block_width
    layout.nodes[stage.sum_node] = Bbox.from_bounds(x, axis - _SUM / 2, _SUM, _SUM)
    bottom = axis + _stack_height(stage) / 2 + _MODULE_PAD
    box = Bbox.from_extents(left, top - MODULE_TITLE, x + _SUM + _MODULE_PAD, bottom)
    layout.modules.append((stage, box))
    return box


def _bands(graph: Graph, row: Sequence[_Placed]) -> Iterator[tuple[str, Bbox]]:
    for is_module, group in groupby(row, key=lambda placed: bool(placed.item.block_nodes)):
        if is_module:
            stages, boxes, _ = zip(*group, strict=True)
            # A row that goes on with a stage repeats no label.
            is_new = stages[0] is not row[0].item
            frame = Bbox.union(boxes).padded(_BAND_PAD)
            frame.y0 -= BAND_TITLE - _BAND_PAD if is_new else 0
            yield size_label(graph, stages[0].sum_node) if is_new else "", frame


def _line(layout: GraphLayout, before: _Placed, after: _Placed) -> list[Point]:
    """The line between two neighbours; to the next row it returns between the rows."""
    start = layout.nodes[before.item.sum_node].x1, center(layout.nodes[before.item.sum_node])[1]
    end = after.box.x0, center(layout.nodes[after.item.sum_node])[1]
    if before.turn == after.turn:
        return [start, end]
    out, back = before.box.x1 + _RETURN, end[0] - _RETURN
    turns = [(out, start[1]), (out, after.turn), (back, after.turn), (back, end[1])]
    return [start, *turns, end]


def _stack_height(stage: ModuleStage) -> float:
    return max(len(stage.block_nodes) * (_BLOCK_HEIGHT + _BLOCK_GAP) - _BLOCK_GAP, 0.0)


def center(box: Bbox) -> Point:
    """Returns the middle of a box."""
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def node_label(graph: Graph, node: str) -> str:
    """Returns what is written on a node."""
    attributes = graph.nodes[node]
    match attributes["kind"]:
        case "block":
            copies = attributes.get("copies", 1)
            return str(attributes["block"]) + (f"{TIMES}{copies}" if copies > 1 else "")
        case "reduction" | "head" as kind:
            return f"{kind} → {attributes['channels']}"
        case "input":
            return "image"
        case kind:
            return str(kind)


def size_label(graph: Graph, node: str) -> str:
    """Returns channels, height and width of a node's output."""
    return TIMES.join(map(str, (graph.nodes[node]["channels"], *graph.nodes[node]["resolution"])))


@lru_cache(maxsize=1024)
def text_width(text: str) -> float:
    """Returns the width in inches of a line of text."""
    return float(TextPath((0, 0), text, prop=FONT).get_extents().width) / 72
