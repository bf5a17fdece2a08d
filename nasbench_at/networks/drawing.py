"""Draws a network's graph, for papers and for people."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path

from nasbench_at.networks.layout import (
    BAND_FONT,
    BAND_TITLE,
    BLOCK_FONT,
    MODULE_TITLE,
    NOTE_FONT,
    TITLE_FONT,
    Band,
    Box,
    Graph,
    GraphLayout,
    ModuleBox,
    Point,
    block_order,
    font,
    layout_graph,
    node_label,
)

__all__ = ["PALETTE", "draw_graph", "render"]

# Okabe and Ito's colours without black, then three of Tol's: told apart by colour-blind readers.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"),
    *("#882255", "#999933", "#332288"),
)
_INK, _WIRE, _BAND, _NEUTRAL = "#222222", "#4D4D4D", "#EFF1F4", "#8A9099"


def draw_graph(graph: Graph, *, weights: Sequence[Sequence[float]] | None = None) -> Figure:
    """Draws a network's graph.

    Args:
        graph: As :func:`nasbench_at.networks.graph.build_graph` lays it out, edited or not.
        weights: Attention weights, a row a module in order and a column a slot, in [0, 1]: the
            width and the opacity of a block's lines follow its weight. None draws all alike.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        ValueError: If the chain of modules is broken, or the weights are not the network's.
    """
    layout = layout_graph(graph)
    _check_weights(graph, layout, weights)
    figure = Figure(figsize=(layout.width, layout.height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.axis("off")
    order = block_order(graph)
    colors = {block: PALETTE[i % len(PALETTE)] for i, block in enumerate(order)}
    for band in layout.bands:
        _draw_band(axes, band)
    for i, module in enumerate(layout.modules):
        _draw_module(axes, graph, layout, module, None if weights is None else weights[i])
    for corners in layout.trunk:
        _draw_trunk(axes, corners)
    for node, box in layout.nodes.items():
        _draw_node(axes, graph, node, box, colors)
    _draw_notes(axes, layout, colors)
    return figure


def render(figure: Figure, file_format: str) -> bytes:
    """Renders a figure.

    Args:
        figure: From :func:`draw_graph`.
        file_format: ``png``, ``pdf`` or ``svg``; equal graphs give equal bytes.
    """
    buffer = BytesIO()
    # TrueType fonts, which publishers ask for, instead of Type 3.
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "nasbench-at"}):
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(file_format)
        figure.savefig(buffer, format=file_format, dpi=200, metadata=metadata)
    return buffer.getvalue()


def _check_weights(
    graph: Graph, layout: GraphLayout, weights: Sequence[Sequence[float]] | None
) -> None:
    if weights is None:
        return
    if len(weights) != len(layout.modules):
        raise ValueError(f"weights must have {len(layout.modules)} rows, got {len(weights)}")
    for i, (row, module) in enumerate(zip(weights, layout.modules, strict=True)):
        num_slots = 1 + max(graph.nodes[node]["slot"] for node in module.stage.block_nodes)
        if len(row) < num_slots or not all(0 <= weight <= 1 for weight in row):
            raise ValueError(
                f"weights of module {i} must be at least {num_slots} in [0, 1], got {list(row)}"
            )


def _draw_band(axes: Axes, band: Band) -> None:
    axes.add_patch(_rounded(band.box, 0.08, facecolor=_BAND, edgecolor="none"))
    x, y = band.box.left + 0.07, band.box.top + BAND_TITLE / 2 + 0.01
    _write(axes, (x, y), band.label, BAND_FONT, weight="bold", ha="left", color=_WIRE)


def _draw_module(
    axes: Axes,
    graph: Graph,
    layout: GraphLayout,
    module: ModuleBox,
    weights: Sequence[float] | None,
) -> None:
    axes.add_patch(
        _rounded(module.box, 0.06, facecolor="white", edgecolor="#B9BFC8", linewidth=0.6)
    )
    x, y = module.box.left + 0.06, module.box.top + MODULE_TITLE / 2 + 0.005
    _write(axes, (x, y), module.title, TITLE_FONT, ha="left", color="#6B7280")
    total = layout.nodes[module.stage.sum_node]
    for node in module.stage.block_nodes:
        box = layout.nodes[node]
        weight = None if weights is None else weights[graph.nodes[node]["slot"]]
        _draw_curve(axes, module.fork, (box.left, box.center[1]), weight)
        _draw_curve(axes, (box.right, box.center[1]), total.center, weight)
    _draw_curve(axes, (module.box.left, module.fork[1]), module.fork, None)
    if len(module.stage.block_nodes) > 1:
        axes.add_patch(Circle(module.fork, 0.018, facecolor=_WIRE, edgecolor="none"))


def _draw_curve(axes: Axes, start: Point, end: Point, weight: float | None) -> None:
    middle = (start[0] + end[0]) / 2
    path = Path(
        [start, (middle, start[1]), (middle, end[1]), end],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )
    width, alpha = (0.7, 1.0) if weight is None else (0.4 + 2.6 * weight, 0.2 + 0.8 * weight)
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=_WIRE, linewidth=width, alpha=alpha))


def _draw_trunk(axes: Axes, corners: tuple[Point, ...]) -> None:
    axes.add_patch(
        FancyArrowPatch(
            path=_rounded_path(corners, 0.06),
            arrowstyle="-|>,head_length=2.4,head_width=1.4",
            mutation_scale=1,
            color=_WIRE,
            linewidth=0.8,
            joinstyle="miter",
        )
    )


def _rounded_path(corners: tuple[Point, ...], radius: float) -> Path:
    vertices, codes = [corners[0]], [Path.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        vertices += [_towards(corner, before, radius), corner, _towards(corner, after, radius)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, corners[-1]], [*codes, Path.LINETO])


def _towards(start: Point, end: Point, distance: float) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = distance / (abs(dx) + abs(dy))  # lines are horizontal or vertical
    return start[0] + share * dx, start[1] + share * dy


def _draw_node(axes: Axes, graph: Graph, node: str, box: Box, colors: dict[str, str]) -> None:
    attributes = graph.nodes[node]
    label = node_label(graph, node)
    match attributes["kind"]:
        case "block":
            color = colors[attributes["block"]]
            axes.add_patch(_rounded(box, 0.04, facecolor=_tint(color), edgecolor=color))
            _write(axes, box.center, label, BLOCK_FONT)
        case "sum":
            _draw_sum(axes, box)
        case "reduction":
            slant = box.height * 0.1
            corners = [
                (box.left, box.top),
                (box.right, box.top + slant),
                (box.right, box.bottom - slant),
                (box.left, box.bottom),
            ]
            axes.add_patch(
                Polygon(corners, facecolor=_tint(_NEUTRAL), edgecolor=_NEUTRAL, linewidth=0.8)
            )
            _write(axes, box.center, label, BLOCK_FONT, rotation=90)
        case _:
            axes.add_patch(_rounded(box, 0.05, facecolor="white", edgecolor=_NEUTRAL))
            _write(axes, box.center, label, BLOCK_FONT, rotation=90)


def _draw_sum(axes: Axes, box: Box) -> None:
    (x, y), arm = box.center, box.width * 0.28
    axes.add_patch(Circle((x, y), box.width / 2, facecolor="white", edgecolor=_INK, linewidth=0.8))
    for ends in (((x - arm, y), (x + arm, y)), ((x, y - arm), (x, y + arm))):
        axes.add_patch(PathPatch(Path(ends), edgecolor=_INK, linewidth=0.8))


def _draw_notes(axes: Axes, layout: GraphLayout, colors: dict[str, str]) -> None:
    for entry in layout.legend:
        color = _NEUTRAL if entry.block is None else colors[entry.block]
        swatch = Box(entry.box.left, entry.box.center[1] - 0.05, 0.1, 0.1)
        axes.add_patch(_rounded(swatch, 0.02, facecolor=_tint(color), edgecolor=color))
        at = entry.box.left + 0.15, entry.box.center[1]
        _write(axes, at, entry.label, NOTE_FONT, ha="left")
    for line, at in layout.caption:
        _write(axes, at, line, NOTE_FONT, color=_WIRE)


def _rounded(box: Box, radius: float, **style: Any) -> FancyBboxPatch:
    shape = f"round,pad=0,rounding_size={radius}"
    style = {"linewidth": 0.8, **style}
    return FancyBboxPatch((box.left, box.top), box.width, box.height, boxstyle=shape, **style)


def _tint(color: str) -> tuple[float, float, float]:
    """A light variant, on which black text reads well."""
    red, green, blue = (1 - 0.38 * (1 - channel) for channel in to_rgb(color))
    return red, green, blue


def _write(axes: Axes, at: Point, text: str, size: float, **style: Any) -> None:
    weight = style.pop("weight", "normal")
    style = {"ha": "center", "color": _INK, **style}
    # Turned text ignores its baseline; level text keeps it, so that neighbours stand on one line.
    va = "center" if "rotation" in style else "center_baseline"
    axes.text(*at, text, va=va, fontproperties=font(size, weight), **style)
