"""Draw a small graph whose edges are operations, such as the cell of a RobNet."""

from __future__ import annotations

from typing import TypeAlias

import networkx as nx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.style import INK, PALETTE

__all__ = ["draw_cell"]

Graph: TypeAlias = "nx.DiGraph[str]"

_PLAIN = "#8A9099"


def draw_cell(graph: Graph) -> Figure:
    """Draws a graph from left to right, an edge in the colour of its ``operation``.

    Args:
        graph: A directed acyclic graph; edges without an operation are grey.
    """
    order = list(nx.lexicographical_topological_sort(graph))
    # Inputs share a column; all others have one of their own, so that no edge runs through a node.
    inputs = [node for node in order if graph.in_degree(node) == 0]
    rest = [node for node in order if node not in inputs]
    places = {node: (0.0, len(inputs) / 2 - 0.5 - i) for i, node in enumerate(inputs)}
    places |= {node: (1.0 + i, 0.35 * (-1) ** i) for i, node in enumerate(rest)}
    operations = sorted({data["operation"] for *_, data in graph.edges(data=True) if data})
    colors = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(operations)}

    figure = Figure(figsize=(1.5 * (len(rest) + 1), 3.2), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96), xlim=(-0.6, len(rest) + 0.6), ylim=(-2, 2))
    axes.axis("off")
    for source, target, data in graph.edges(data=True):
        is_long = places[target][0] - places[source][0] > 1
        bend = 0.28 if places[source][1] < 0 else -0.28  # away from the middle
        axes.annotate(
            "",
            places[target],
            places[source],
            arrowprops={
                "arrowstyle": "-|>",
                "color": colors.get(data.get("operation", ""), _PLAIN),
                "connectionstyle": f"arc3,rad={bend if is_long else 0}",
                "shrinkA": 18,
                "shrinkB": 18,
                "linewidth": 1.4,
            },
        )
    for node, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": INK}
        axes.text(x, y, node, ha="center", va="center", fontsize=9, color=INK, bbox=box)
    for name, color in colors.items():
        axes.plot([], [], color=color, label=name)
    if colors:
        axes.legend(loc="lower center", ncols=len(colors), frameon=False, fontsize=9)
    return figure
