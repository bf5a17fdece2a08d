"""Draws a DS-Net's graph, for papers and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.ticker import EngFormatter
from matplotlib.transforms import Bbox

from analysis.network_drawing.layout import (
    BAND_TITLE,
    FONT,
    FORK,
    MODULE_TITLE,
    TIMES,
    Graph,
    GraphLayout,
    Point,
    center,
    layout_graph,
    node_label,
    size_label,
    text_width,
)
from analysis.style import INK, PALETTE
from nasbench_at.networks.graph import find_node

__all__ = ["draw_graph"]

_WIRE, _BAND, _FRAME, _TITLE = "#4D4D4D", "#EFF1F4", "#B9BFC8", "#6B7280"
_OTHER, _NEUTRAL = "other layers", "#8A9099"
_LINE = 0.18  # height of a line of the legend and of the caption


def draw_graph(graph: Graph, *, weights: Sequence[Sequence[float]] | None = None) -> Figure:
    """Draws a network's graph.

    Args:
        graph: As :func:`nasbench_at.networks.graph.build_graph` lays it out, edited or not.
        weights: Attention weights, a row a module in order, columns as nodes say, in [0, 1]: the
            width and the opacity of a block's lines follow its weight. None draws all alike.

    Raises:
        ValueError: If the chain of modules is broken, or the weights are not the network's.
    """
    layout = layout_graph(graph)
    if weights is not None:
        _check_weights(graph, layout, weights)
    colors = {block: PALETTE[i % len(PALETTE)] for i, block in enumerate(_block_order(graph))}
    shares = _parameter_shares(graph, colors)
    num_columns = max(int(layout.width / (max(map(text_width, shares)) + 0.35)), 1)
    height = layout.height + (1.3 - (-len(shares) // num_columns)) * _LINE
    figure = Figure(figsize=(layout.width, height), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(height, 0))
    axes.axis("off")
    for label, box in layout.bands:
        axes.add_patch(_rounded(box, 0.08, facecolor=_BAND, edgecolor="none"))
        at = box.x0 + 0.07, box.y0 + BAND_TITLE / 2 + 0.01
        _write(axes, at, label, ha="left", color=_WIRE, size=7.5, weight="bold")
    for i in range(len(layout.modules)):
        _draw_module(axes, graph, layout, i, None if weights is None else weights[i])
    arrow = "-|>,head_length=2.4,head_width=1.4"
    for corners in layout.trunk:
        path = _rounded_path(corners, 0.06)
        axes.add_patch(FancyArrowPatch(path=path, arrowstyle=arrow, color=_WIRE, lw=0.8))
    for node, box in layout.nodes.items():
        _draw_node(axes, graph, node, box, colors)
    axes.legend(
        [Patch(facecolor=_tint(color), edgecolor=color) for color in shares.values()],
        list(shares),
        loc="upper center",
        bbox_to_anchor=(0.5, 1 - layout.height / height),
        borderaxespad=0,
        ncols=num_columns,
        prop=FONT,
        frameon=False,
        handlelength=1.1,
        handleheight=1.1,
    )
    _write(axes, (layout.width / 2, height - 0.6 * _LINE), _caption(graph), color=_WIRE)
    return figure


def _check_weights(graph: Graph, layout: GraphLayout, weights: Sequence[Sequence[float]]) -> None:
    if len(weights) != len(layout.modules):
        raise ValueError(f"weights must have {len(layout.modules)} rows, got {len(weights)}")
    for i, (row, (stage, _)) in enumerate(zip(weights, layout.modules, strict=True)):
        num_columns = 1 + max(graph.nodes[node]["column"] for node in stage.block_nodes)
        if len(row) < num_columns or not all(0 <= weight <= 1 for weight in row):
            raise ValueError(
                f"weights of module {i} must be at least {num_columns} in [0, 1], got {list(row)}"
            )


def _block_order(graph: Graph) -> list[str]:
    """The blocks' names, registered ones first, so that a block has its colour in every figure.

    Of a graph without costs, which is drawn without torch, they are as they appear.
    """
    used = [values["block"] for _, values in graph.nodes(data=True) if "block" in values]
    if "num_params" not in graph.graph:
        return list(dict.fromkeys(used))
    from blocks import list_blocks  # torch

    return list(dict.fromkeys([*list_blocks(), *used]))


def _parameter_shares(graph: Graph, colors: Mapping[str, str]) -> dict[str, str]:
    """The legend: a block's share of the parameters, and its colour."""
    counts: Counter[str] = Counter()
    for _, values in graph.nodes(data=True):
        counts[values.get("block", _OTHER)] += values.get("num_params", 0)
    total = counts.total()
    percents = {name: f" {count / total:.1%}" if total else "" for name, count in counts.items()}
    for name, count in counts.items():
        if count and percents[name] == " 0.0%":
            percents[name] = " < 0.1%"
    order = {**colors, _OTHER: _NEUTRAL}
    return {name + percents[name]: color for name, color in order.items() if name in counts}


def _caption(graph: Graph) -> str:
    image = f"one {size_label(graph, find_node(graph, 'input'))} image"
    if "num_params" not in graph.graph:
        return image
    num_params, flops = (
        sum(values[key] for _, values in graph.nodes(data=True)) for key in ("num_params", "flops")
    )
    # What rounds to 1000 goes up a unit.
    rounded = EngFormatter("FLOPs")(float(f"{flops:.3g}"))
    return f"{num_params:,} parameters, {rounded} (2{TIMES}MACs, {image})"


def _draw_module(
    axes: Axes, graph: Graph, layout: GraphLayout, number: int, weights: Sequence[float] | None
) -> None:
    stage, frame = layout.modules[number]
    axes.add_patch(_rounded(frame, 0.06, facecolor="white", edgecolor=_FRAME, linewidth=0.6))
    at = frame.x0 + 0.06, frame.y0 + MODULE_TITLE / 2 + 0.005
    title = f"module {graph.nodes[stage.sum_node]['module'] + 1}"
    _write(axes, at, title, ha="left", color=_TITLE, size=6)
    total = center(layout.nodes[stage.sum_node])
    fork = frame.x0 + FORK, total[1]
    for node in stage.block_nodes:
        box = layout.nodes[node]
        y = center(box)[1]
        weight = None if weights is None else weights[graph.nodes[node]["column"]]
        _draw_curve(axes, fork, (box.x0, y), weight)
        _draw_curve(axes, (box.x1, y), total, weight)
    _draw_curve(axes, (frame.x0, fork[1]), fork, None)
    if len(stage.block_nodes) > 1:
        axes.plot(*fork, "o", ms=2.6, mew=0, color=_WIRE)


def _draw_curve(axes: Axes, start: Point, end: Point, weight: float | None) -> None:
    middle = (start[0] + end[0]) / 2
    vertices = [start, (middle, start[1]), (middle, end[1]), end]
    path = Path(vertices, [Path.MOVETO, *[Path.CURVE4] * 3])
    width, alpha = (0.7, 1.0) if weight is None else (0.4 + 2.6 * weight, 0.2 + 0.8 * weight)
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=_WIRE, linewidth=width, alpha=alpha))


def _rounded_path(corners: Sequence[Point], radius: float) -> Path:
    """A path along lines that are level or upright."""
    points = np.array(corners)
    steps = np.diff(points, axis=0)
    steps *= radius / np.abs(steps).sum(axis=1, keepdims=True)
    vertices, codes = [points[0]], [Path.MOVETO]
    for corner, before, after in zip(points[1:-1], steps, steps[1:], strict=False):
        vertices += [corner - before, corner, corner + after]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, points[-1]], [*codes, Path.LINETO])


def _draw_node(axes: Axes, graph: Graph, node: str, box: Bbox, colors: Mapping[str, str]) -> None:
    label = node_label(graph, node)
    match graph.nodes[node]["kind"]:
        case "block":
            color = colors[graph.nodes[node]["block"]]
            axes.add_patch(_rounded(box, 0.04, facecolor=_tint(color), edgecolor=color))
            _write(axes, center(box), label)
        case "sum":
            x, y = center(box)
            axes.plot(x, y, "o", ms=72 * box.width, mew=0.8, mfc="white", mec=INK)
            axes.plot(x, y, "+", ms=40 * box.width, mew=0.8, mec=INK)
        case "reduction":
            slant = box.height * 0.1
            right = [(box.x1, box.y0 + slant), (box.x1, box.y1 - slant)]
            corners = [(box.x0, box.y0), *right, (box.x0, box.y1)]
            trapezium = Polygon(corners, facecolor=_tint(_NEUTRAL), edgecolor=_NEUTRAL, lw=0.8)
            axes.add_patch(trapezium)
            _write(axes, center(box), label, rotation=90)
        case _:
            axes.add_patch(_rounded(box, 0.05, facecolor="white", edgecolor=_NEUTRAL))
            _write(axes, center(box), label, rotation=90)


def _rounded(box: Bbox, radius: float, *, linewidth: float = 0.8, **style: Any) -> FancyBboxPatch:
    shape = f"round,pad=0,rounding_size={radius}"
    size = box.width, box.height
    return FancyBboxPatch((box.x0, box.y0), *size, boxstyle=shape, linewidth=linewidth, **style)


def _tint(color: str) -> tuple[float, float, float]:
    """A light variant, on which black text reads well."""
    red, green, blue = (1 - 0.38 * (1 - channel) for channel in to_rgb(color))
    return red, green, blue


def _write(axes: Axes, at: Point, text: str, **style: Any) -> None:
    # Turned text ignores its baseline; level text keeps it, so that neighbours stand on one line.
    va = "center" if "rotation" in style else "center_baseline"
    axes.text(*at, text, **{"va": va, "ha": "center", "color": INK, "font": FONT, **style})
