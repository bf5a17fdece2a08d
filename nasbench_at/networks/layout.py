"""Where everything lies in the drawing of a network's graph.

Lengths are inches; x grows to the right and y downwards, as one reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise, takewhile
from math import ceil
from typing import Any, NamedTuple, TypeAlias

import networkx as nx
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from nasbench_at.networks.graph import ModuleStage, find_node, walk_stages

__all__ = [
    "BAND_FONT",
    "BAND_TITLE",
    "BLOCK_FONT",
    "MODULE_TITLE",
    "NOTE_FONT",
    "TITLE_FONT",
    "Band",
    "Box",
    "Graph",
    "GraphLayout",
    "LegendEntry",
    "ModuleBox",
    "Point",
    "block_order",
    "font",
    "layout_graph",
    "node_label",
]

Graph: TypeAlias = "nx.DiGraph[str]"
Point: TypeAlias = tuple[float, float]
Item: TypeAlias = str | ModuleStage

_TIMES = " \N{MULTIPLICATION SIGN} "

_MAX_ROW = 8.6  # five modules of four blocks with what stands before and after them
_MIN_WIDTH = 3.25  # a column of a paper
_MARGIN = 0.08
_GAP = 0.18
_RETURN = 0.14  # how far the line to the next row stands off
_ROW_GAP = 0.26
_BAND_PAD = 0.055
BAND_TITLE = 0.19
MODULE_TITLE = 0.14
_MODULE_PAD = 0.075
_BLOCK_HEIGHT = 0.2
_BLOCK_GAP = 0.055
_FORK = 0.08  # from a module's left side to where its input forks
_FAN = 0.17  # the length of the curves before and after the blocks
_SUM = 0.155
_NODE_WIDTH = 0.24
_ENTRY_GAP = 0.16
_LINE = 0.18  # height of a line of the legend and of the caption

BLOCK_FONT, TITLE_FONT, BAND_FONT, NOTE_FONT = 7.0, 6.0, 7.5, 7.0


class Box(NamedTuple):
    """A rectangle; ``top`` is its smaller y."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The larger x."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """The larger y."""
        return self.top + self.height

    @property
    def center(self) -> Point:
        """The middle."""
        return self.left + self.width / 2, self.top + self.height / 2


class ModuleBox(NamedTuple):
    """A robust module: its frame, where its input forks, its nodes, its title."""

    box: Box
    fork: Point
    stage: ModuleStage
    title: str


class Band(NamedTuple):
    """The ground on which modules of one width stand; a stage's first band has its label."""

    box: Box
    label: str


class LegendEntry(NamedTuple):
    """A block's colour and share of the parameters; ``block`` is None for all other nodes."""

    block: str | None
    label: str
    box: Box


class GraphLayout(NamedTuple):
    """Where everything lies.

    Args:
        width: Of the canvas.
        height: Of the canvas.
        nodes: The box of every node of the graph.
        modules: In order.
        bands: In order.
        trunk: The lines from module to module, as corners.
        legend: In order of reading.
        caption: Lines of text and their centers.
    """

    width: float
    height: float
    nodes: dict[str, Box]
    modules: tuple[ModuleBox, ...]
    bands: tuple[Band, ...]
    trunk: tuple[tuple[Point, ...], ...]
    legend: tuple[LegendEntry, ...]
    caption: tuple[tuple[str, Point], ...]


def layout_graph(graph: Graph) -> GraphLayout:
    """Places every node of a graph: in one row, or in a row per stage and more for long stages.

    Args:
        graph: As :func:`nasbench_at.networks.graph.build_graph` lays it out, edited or not.

    Returns:
        Boxes that do not overlap (blocks and sums lie inside their module).

    Raises:
        ValueError: If the chain of modules is broken; the message names the node.
    """
    return _Layout(graph).finish()


class _Layout:
    """Places rows from the top downwards, then legend and caption."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        labels = [node_label(graph, node) for node in graph if graph.nodes[node]["kind"] == "block"]
        self.block_width = max(map(_text_width, labels)) + 0.12
        self.module_width = _FORK + 2 * _FAN + self.block_width + _SUM + _MODULE_PAD
        chain = [item for item in _chain(graph) if isinstance(item, str)]
        self.node_height = max(_text_width(node_label(graph, node)) for node in chain) + 0.2
        self.nodes: dict[str, Box] = {}
        self.modules: list[ModuleBox] = []
        self.bands: list[Band] = []
        self.trunk: list[tuple[Point, ...]] = []
        self.exit: Point | None = None  # where the item placed last lets its output go
        self.row_right = self.row_bottom = 0.0

    def finish(self) -> GraphLayout:
        rows = self._rows()
        # Modules of all rows are aligned, so what stands before them is flush right.
        leads = [len(_lead(row)) * (_NODE_WIDTH + _GAP) for row in rows]
        starts = [max(leads) - lead for lead in leads]
        used = max(s + self._length(row) for s, row in zip(starts, rows, strict=True))
        sides = _MARGIN if len(rows) == 1 else _MARGIN + _RETURN
        width = max(used + 2 * sides, _MIN_WIDTH)
        top = _MARGIN
        for start, row in zip(starts, rows, strict=True):
            top = self._place_row(row, (width - used) / 2 + start, top) + _ROW_GAP
        legend = _place_legend(self.graph, width, top - _ROW_GAP + 0.1)
        caption = _place_caption(self.graph, width, legend[-1].box.bottom)
        height = caption[-1][1][1] + _LINE / 2 + _MARGIN
        return GraphLayout(
            width,
            height,
            self.nodes,
            tuple(self.modules),
            tuple(self.bands),
            tuple(self.trunk),
            legend,
            caption,
        )

    def _rows(self) -> list[list[Item]]:
        chain = list(_chain(self.graph))
        if self._length(chain) <= _MAX_ROW:
            return [chain]
        stages: list[list[Item]] = [[]]
        for item in chain:
            if isinstance(item, str) and self.graph.nodes[item]["kind"] == "reduction":
                stages.append([])
            stages[-1].append(item)
        return [row for stage in stages for row in self._wrap_stage(stage)]

    def _wrap_stage(self, stage: Sequence[Item]) -> list[list[Item]]:
        """Spreads the modules of a stage evenly over as many rows as they need."""
        lead = _lead(stage)
        modules = [item for item in stage if not isinstance(item, str)]
        tail = stage[len(lead) + len(modules) :]
        room = _MAX_ROW - self._length([*lead, *tail])
        capacity = max(int(room / (self.module_width + _GAP)), 1)
        num_rows = max(ceil(len(modules) / capacity), 1)
        ends = [ceil(len(modules) * i / num_rows) for i in range(num_rows + 1)]
        rows: list[list[Item]] = [list(modules[a:b]) for a, b in pairwise(ends)]
        rows[0][:0] = lead
        rows[-1] += tail
        return rows

    def _length(self, items: Sequence[Item]) -> float:
        widths = [_NODE_WIDTH if isinstance(item, str) else self.module_width for item in items]
        return sum(widths) + _GAP * max(len(items) - 1, 0)

    def _place_row(self, row: Sequence[Item], left: float, top: float) -> float:
        """Places a row and returns where it ends."""
        modules = [item for item in row if not isinstance(item, str)]
        stack = max((_stack_height(len(item.block_nodes)) for item in modules), default=0.0)
        # A row that goes on with a stage repeats no label.
        title = MODULE_TITLE + (BAND_TITLE if isinstance(row[0], str) else _BAND_PAD)
        foot = _MODULE_PAD + _BAND_PAD
        half_node = self.node_height / 2 if len(modules) < len(row) else 0.0
        axis = top + max(stack / 2 + title, half_node)
        for is_node, run in groupby(row, key=lambda item: isinstance(item, str)):
            items, first = list(run), left
            for item in items:
                self._place_item(item, left, axis)
                left += self._length([item]) + _GAP
            if not is_node:
                span = left - _GAP - first + 2 * _BAND_PAD
                box = Box(first - _BAND_PAD, axis - stack / 2 - title, span, stack + title + foot)
                label = "" if items[0] is row[0] else self._size_label(items[0])
                self.bands.append(Band(box, label))
        self.row_right = left - _GAP
        self.row_bottom = axis + max(stack / 2 + foot, half_node)
        return self.row_bottom

    def _size_label(self, item: Item) -> str:
        node = item if isinstance(item, str) else item.sum_node
        return _size_text(self.graph.nodes[node])

    def _place_item(self, item: Item, left: float, axis: float) -> None:
        if isinstance(item, str):
            box = Box(left, axis - self.node_height / 2, _NODE_WIDTH, self.node_height)
            self.nodes[item] = box
            self._connect((left, axis), (box.right, axis))
        else:
            self._place_module(item, left, axis)
            total = self.nodes[item.sum_node]
            self._connect((left, axis), (total.right, axis))

    def _place_module(self, stage: ModuleStage, left: float, axis: float) -> None:
        stack = _stack_height(len(stage.block_nodes))
        top = axis - stack / 2
        for i, node in enumerate(stage.block_nodes):
            y = top + i * (_BLOCK_HEIGHT + _BLOCK_GAP)
            self.nodes[node] = Box(left + _FORK + _FAN, y, self.block_width, _BLOCK_HEIGHT)
        right = left + self.module_width - _MODULE_PAD
        self.nodes[stage.sum_node] = Box(right - _SUM, axis - _SUM / 2, _SUM, _SUM)
        height = stack + MODULE_TITLE + _MODULE_PAD
        box = Box(left, top - MODULE_TITLE, self.module_width, height)
        title = f"module {self.graph.nodes[stage.sum_node]['module'] + 1}"
        self.modules.append(ModuleBox(box, (left + _FORK, axis), stage, title))

    def _connect(self, entry: Point, leave: Point) -> None:
        """Adds the line from the item before; to the next row it returns between the rows."""
        if self.exit is not None:
            corners = [self.exit, entry]
            if entry[1] != self.exit[1]:
                between = self.row_bottom + _ROW_GAP / 2
                out, back = self.row_right + _RETURN, entry[0] - _RETURN
                corners[1:1] = [(out, self.exit[1]), (out, between), (back, between)]
                corners[-1:-1] = [(back, entry[1])]
            self.trunk.append(tuple(corners))
        self.exit = leave


def _chain(graph: Graph) -> Iterator[Item]:
    yield find_node(graph, "input")
    yield find_node(graph, "stem")
    for stage in walk_stages(graph):
        yield stage if isinstance(stage, ModuleStage) else stage.node
    yield find_node(graph, "pool")
    yield find_node(graph, "head")


def _lead(row: Sequence[Item]) -> list[Item]:
    """What stands before the first module."""
    return list(takewhile(lambda item: isinstance(item, str), row))


def _stack_height(num_blocks: int) -> float:
    return num_blocks * (_BLOCK_HEIGHT + _BLOCK_GAP) - _BLOCK_GAP


def node_label(graph: Graph, node: str) -> str:
    """What is written on a node."""
    attributes = graph.nodes[node]
    match attributes["kind"]:
        case "block":
            copies = attributes.get("copies", 1)
            return str(attributes["block"]) + (f"{_TIMES}{copies}" if copies > 1 else "")
        case "reduction":
            return f"reduction → {attributes['channels']}"
        case "head":
            return f"head → {attributes['channels']}"
        case "input":
            return "image"
        case kind:
            return str(kind)


def _size_text(attributes: Any) -> str:
    return _TIMES.join(map(str, (attributes["channels"], *attributes["resolution"])))


@lru_cache(maxsize=1024)
def _text_width(text: str, size: float = BLOCK_FONT) -> float:
    """Width in inches of a line of text."""
    path = TextPath((0, 0), text, prop=font(size))
    return float(path.get_extents().width) / 72


def font(size: float, weight: str = "normal") -> FontProperties:
    """The font of the drawing; it ships with matplotlib, so layouts are the same everywhere."""
    return FontProperties(family="DejaVu Sans", size=size, weight=weight)


def _place_legend(graph: Graph, width: float, top: float) -> tuple[LegendEntry, ...]:
    counts: Counter[str | None] = Counter()
    for _, attributes in graph.nodes(data=True):
        counts[attributes.get("block")] += attributes.get("num_params", 0)
    blocks: list[str | None] = [block for block in block_order(graph) if block in counts]
    total = counts.total()
    labels = {
        block: " ".join(
            [block or "other layers", *([_percent(counts[block] / total)] if total else [])]
        )
        for block in [*blocks, None]
    }
    lines = _wrap([0.16 + _text_width(label, NOTE_FONT) for label in labels.values()], width)
    entries = []
    items = iter(labels.items())
    for line in lines:
        left = (width - sum(line) - _ENTRY_GAP * (len(line) - 1)) / 2
        for length in line:
            block, label = next(items)
            entries.append(LegendEntry(block, label, Box(left, top, length, _LINE)))
            left += length + _ENTRY_GAP
        top += _LINE
    return tuple(entries)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share == 0 or share >= 0.0005 else "< 0.1%"


def _wrap(lengths: Sequence[float], width: float) -> list[list[float]]:
    """Breaks the entries of the legend into lines that fit into the canvas."""
    lines: list[list[float]] = [[]]
    for length in lengths:
        taken = sum(lines[-1]) + _ENTRY_GAP * len(lines[-1])
        if lines[-1] and taken + length > width - 2 * _MARGIN:
            lines.append([])
        lines[-1].append(length)
    return lines


def block_order(graph: Graph) -> list[str]:
    """The blocks' names, registered ones first, so that a block has its colour in every figure.

    Of a graph without costs, which is drawn without torch, they are as they appear.
    """
    used = [values["block"] for _, values in graph.nodes(data=True) if "block" in values]
    if not _has_costs(graph):
        return list(dict.fromkeys(used))
    from blocks import list_blocks  # torch

    return list(dict.fromkeys([*list_blocks(), *used]))


def _has_costs(graph: Graph) -> bool:
    return all("num_params" in values for _, values in graph.nodes(data=True))


def _place_caption(graph: Graph, width: float, top: float) -> tuple[tuple[str, Point], ...]:
    image = _size_text(graph.nodes[find_node(graph, "input")])
    parts: tuple[str, ...] = (f"one {image} image",)
    if _has_costs(graph):
        num_params, flops = (
            sum(values[key] for _, values in graph.nodes(data=True))
            for key in ("num_params", "flops")
        )
        parts = (
            f"{num_params:,} parameters, {_engineering(flops)}FLOPs",
            f"(2{_TIMES}MACs, one {image} image)",
        )
    together = " ".join(parts)
    lines = (together,) if _text_width(together, NOTE_FONT) < width - 2 * _MARGIN else parts
    return tuple(
        (line, (width / 2, top + 0.03 + (i + 0.5) * _LINE)) for i, line in enumerate(lines)
    )


def _engineering(number: float) -> str:
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * scale:  # what rounds to 1000 goes up a unit
            return f"{number / scale:.3g} {letter}"
    return f"{number:.0f} "
