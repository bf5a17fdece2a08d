"""The figure of regret against the cost of a search."""

from __future__ import annotations

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from analysis.style import (
    INK,
    LEGEND_BELOW,
    MARKERS,
    PALETTE,
    create_figure,
    style_axes,
)
from studies.replay.regret import EVERY_NETWORK

__all__ = ["draw_regret"]


def draw_regret(frame: pd.DataFrame) -> Figure:
    """Draws regret against the share of the full cost, a panel a pruner and a line a sampler.

    Bands are 95 % intervals of the means. The dashed line is what one seed of each network leaves
    when all of them were trained.

    Args:
        frame: What :func:`studies.replay.regret_by_cost` returned, of at most as many samplers as
            there are colours.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        ValueError: If there are too many samplers to tell apart.
    """
    searches = frame[frame["sampler"] != EVERY_NETWORK]
    samplers, pruners = searches["sampler"].unique(), searches["pruner"].unique()
    if len(samplers) > len(PALETTE):
        raise ValueError(f"samplers must be at most {len(PALETTE)}, got {len(samplers)}")
    figure = create_figure(1.2 + 2.1 * len(pruners), 3.4)
    panels = figure.subplots(1, len(pruners), sharey=True, squeeze=False)[0]
    everything = frame[frame["sampler"] == EVERY_NETWORK]
    for axes, pruner in zip(panels, pruners, strict=True):
        for sampler, color, marker in zip(samplers, PALETTE, cycle(MARKERS), strict=False):
            chosen = searches[(searches["sampler"] == sampler) & (searches["pruner"] == pruner)]
            _draw_line(axes, chosen, str(sampler), color, marker)
        for regret in everything["regret"]:
            axes.axhline(100 * regret, color=INK, linestyle="--", linewidth=1, label=EVERY_NETWORK)
        _style(axes, "no pruner" if pruner == "none" else str(pruner))
    panels[0].set_ylabel("below the best network (points)")
    figure.supxlabel("cost, as a share of training every network once", fontsize=9)
    above = {**LEGEND_BELOW, "loc": "outside upper center", "ncols": len(samplers) + 1}
    figure.legend(*panels[0].get_legend_handles_labels(), **above)
    return figure


def _draw_line(axes: Axes, rows: pd.DataFrame, name: str, color: str, marker: str) -> None:
    shares = rows["share"].to_numpy()
    axes.plot(
        shares,
        100 * rows["regret"].to_numpy(),
        color=color,
        marker=marker,
        markersize=3.5,
        linewidth=1.3,
        label=name,
    )
    low, high = 100 * rows["low"].to_numpy(), 100 * rows["high"].to_numpy()
    axes.fill_between(shares, low, high, color=color, alpha=0.12, linewidth=0)


def _style(axes: Axes, title: str) -> None:
    style_axes(axes, x="", y="", title=title)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([0.02, 0.05, 0.1, 0.2, 0.5])
    axes.set_ylim(bottom=0)
