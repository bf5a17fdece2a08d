"""Draws attention weights: a panel a group by module, a panel a block by epoch, their entropy."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.attention.weights import (
    AttentionHistory,
    AttentionWeights,
    attention_distances,
    attention_entropy,
)
from analysis.errors import MissingRunsError
from analysis.study_figures.estimates import MIN_SEEDS
from analysis.style import INK, LEGEND_BELOW, MARKERS, PALETTE, create_figure, style_axes
from nasbench_at.records import mean_interval

__all__ = [
    "draw_attention",
    "draw_attention_distances",
    "draw_attention_entropy",
    "draw_attention_history",
]

_WEIGHT = "attention weight"
_MODULE = "module"


def draw_attention(groups: Sequence[AttentionWeights]) -> Figure:
    """Draws weights by module, a panel a group, a line a block, as Fig. 8 of the paper.

    Lines are means over seeds. From five seeds on their 95 % interval is shaded; fewer are drawn
    as hollow points.

    Args:
        groups: One or more.

    Raises:
        ValueError: If there are no groups.
    """
    figure, panels = _create_panels(groups)
    names = dict.fromkeys(block for group in groups for block in group.blocks)
    styles = {block: _style(i) for i, block in enumerate(names)}
    for panel, group in zip(panels, groups, strict=True):
        numbers = np.arange(1, len(group.modules) + 1)
        for column, block in enumerate(group.blocks):
            _draw_seeds(panel, numbers, group.weights[:, :, column], *styles[block], block)
        style_axes(panel, x=_MODULE, y=_WEIGHT, title=fill(_title(group), 40))
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _put_legend_below(figure, panels, columns=4)
    return figure


def draw_attention_entropy(groups: Sequence[AttentionWeights]) -> Figure:
    """Draws by module how evenly the blocks are weighed, a line a group.

    The entropy of each run is divided by its largest value, log of the number of active blocks,
    and then averaged; a module of one active block has none. Seeds are drawn as by
    :func:`draw_attention`.

    Args:
        groups: One or more.

    Raises:
        ValueError: If there are no groups.
    """
    _check_any(groups)
    figure = create_figure()
    axes = figure.add_subplot()
    for i, group in enumerate(groups):
        entropy = attention_entropy(group.weights, normalised=True)
        numbers = np.arange(1, len(group.modules) + 1)
        _draw_seeds(axes, numbers, entropy, *_style(i), _title(group))
    style_axes(axes, x=_MODULE, y="entropy of the weights / log of active blocks")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _put_legend_below(figure, [axes], columns=1)
    return figure


def draw_attention_history(history: AttentionHistory) -> Figure:
    """Draws weights by epoch, a panel a block, a line a module, darker the earlier the module."""
    figure = create_figure(2.2 * len(history.blocks) + 0.9, 2.8)
    panels = figure.subplots(1, len(history.blocks), sharey=True, squeeze=False)[0]
    depth = ScalarMappable(Normalize(1, max(2, len(history.modules))), mpl.colormaps["viridis"])
    colors = depth.to_rgba(np.arange(1, len(history.modules) + 1))
    for column, (panel, block) in enumerate(zip(panels, history.blocks, strict=True)):
        for line, color in zip(history.weights[:, :, column].T, colors, strict=True):
            panel.plot(history.epochs, line, color=color, linewidth=1.2)
        style_axes(panel, x="epoch", y=_WEIGHT if column == 0 else "", title=block)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylim(bottom=0)
    figure.suptitle(history.name, fontsize=8, color=INK)
    figure.colorbar(depth, ax=list(panels), label=_MODULE, ticks=MaxNLocator(integer=True))
    return figure


def draw_attention_distances(weights: AttentionWeights, names: Sequence[str]) -> Figure:
    """Draws the l∞ distance between the weights of each two runs (Sec. 4.4), with its value.

    Args:
        weights: Of the runs.
        names: What the runs are called, in their order.

    Raises:
        ValueError: If there are fewer than two runs.
    """
    if weights.num_seeds < 2:
        raise MissingRunsError(f"distances need at least two runs, got {weights.num_seeds}")
    distances = attention_distances(weights.weights)
    size = 1.6 + 0.62 * len(names)
    figure = create_figure(size + 0.8, size)
    axes = figure.add_subplot()
    image = axes.imshow(distances, cmap="PuBu", vmin=0, vmax=max(float(distances.max()), 1e-9))
    for (i, j), value in np.ndenumerate(distances):
        is_dark = value > 0.6 * distances.max()
        color = "white" if is_dark else INK
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_title("largest difference between attention weights", fontsize=8, color=INK)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _create_panels(groups: Sequence[AttentionWeights]) -> tuple[Figure, Sequence[Axes]]:
    _check_any(groups)
    figure = create_figure(3.4 * len(groups), 3.0)
    panels: Sequence[Axes] = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    return figure, panels


def _check_any(groups: Sequence[AttentionWeights]) -> None:
    if not groups:
        raise ValueError("there must be at least one group of runs to draw, got none")


def _style(number: int) -> tuple[str, str]:
    return PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]


def _draw_seeds(
    axes: Axes,
    x: NDArray[np.int64],
    values: NDArray[np.float64],
    color: str,
    marker: str,
    label: str,
) -> None:
    """Draws a mean over seeds, shape ``(seeds, places)``, with its interval or each of a few."""
    if len(values) >= MIN_SEEDS:
        low, high = mean_interval(values)
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    mean = values.mean(axis=0)
    axes.plot(x, mean, color=color, marker=marker, markersize=3.5, linewidth=1.4, label=label)
    for seed in values if 1 < len(values) < MIN_SEEDS else ():
        axes.plot(x, seed, "o", color=color, markersize=3, markerfacecolor="none")


def _put_legend_below(figure: Figure, panels: Sequence[Axes], *, columns: int) -> None:
    lines = {str(line.get_label()): line for panel in panels for line in panel.lines}
    named = {name: line for name, line in lines.items() if not name.startswith("_")}
    figure.legend(named.values(), named.keys(), **{**LEGEND_BELOW, "ncols": columns})


def _title(group: AttentionWeights) -> str:
    if group.num_seeds == 1:
        return f"{group.name}, 1 seed"
    spread = "band: 95 % interval" if group.num_seeds >= MIN_SEEDS else "hollow: each seed"
    return f"{group.name}, mean over {group.num_seeds} seeds; {spread}"
