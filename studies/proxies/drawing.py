"""The figure of rank correlation against cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.style import INK, LEGEND_BELOW, PALETTE, create_figure, style_axes
from nasbench_at.records.naming.labels import metric_label
from studies.proxies.comparison import Kind, ProxyComparison

__all__ = ["draw_proxies"]

_KINDS: Mapping[Kind, tuple[str, str, str]] = {
    "untrained": (PALETTE[5], "white", "score of untrained networks"),
    "epochs": (PALETTE[0], PALETTE[0], "validation accuracy after so many epochs"),
    "method": (PALETTE[1], PALETTE[1], "validation accuracy after other training"),
    "one-shot": (PALETTE[2], "white", "one network trained for all"),
}
"""Of each kind its colour, that of its points' faces, and what the legend says."""
LEAST = 1e-5
"""Where a cost of next to nothing is drawn, on a logarithmic scale."""


def draw_proxies(comparison: ProxyComparison) -> Figure:
    """Draws Kendall's tau of each proxy against its cost, with 95 % intervals and the ceiling.

    Filled points are networks trained one by one, hollow ones scores without that.

    Returns:
        A figure of its own canvas, which no global state refers to.
    """
    frame = comparison.frame
    figure = create_figure(7.2, 5.0)
    axes = figure.add_subplot()
    for kind, (color, face, label) in _KINDS.items():
        rows = frame[frame["kind"] == kind]
        if rows.empty:
            continue
        spread = np.abs(rows[["tau_low", "tau_high"]].to_numpy().T - rows["tau"].to_numpy())
        axes.errorbar(
            rows["cost"].clip(lower=LEAST),
            rows["tau"],
            yerr=spread,
            fmt="o",
            color=color,
            markerfacecolor=face,
            markersize=5,
            elinewidth=0.9,
            label=label,
        )
    for proxy, kind, cost, tau in frame[["proxy", "kind", "cost", "tau"]].itertuples(index=False):
        point = max(cost, LEAST), tau
        above = kind in ("untrained", "epochs")  # so that few labels meet
        axes.annotate(
            proxy.split()[0] if kind == "epochs" else proxy.removeprefix("one-shot, "),
            point,
            (4, 4) if above else (4, -10),
            textcoords="offset points",
            fontsize=7,
            color=INK,
        )
    ceiling = comparison.ceiling.tau
    axes.axhline(ceiling, color=INK, linestyle="--", linewidth=1, label="noise ceiling")
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.set_xscale("log")
    style_axes(
        axes,
        x="cost, as a share of training every network once",
        y=f"Kendall's τ with {metric_label(comparison.attack)}",
        title=f"{frame['networks'].max()} networks, reliability "
        f"{comparison.ceiling.reliability.value:.2f}",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    figure.legend(**{**LEGEND_BELOW, "ncols": 2})
    return figure
