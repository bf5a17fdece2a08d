"""Points with their uncertainty, side by side: the drawing that several figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from analysis.study_figures.estimates import Estimate
from analysis.style import MARKERS, PALETTE, style_axes

__all__ = ["describe_spread", "draw_points"]


def draw_points(
    axes: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    y: str,
    title: str = "",
    x: str = "",
) -> None:
    """Draws a group of points for each label, a colour and a marker for each series.

    Args:
        axes: Where to.
        labels: What stands below the groups.
        series: By name, an estimate for each label; None where there is none.
        y: What the vertical axis shows.
        title: A line above.
        x: What the horizontal axis shows.
    """
    width = 0.7 / max(1, len(series))
    for i, (name, estimates) in enumerate(series.items()):
        offset = (i - (len(series) - 1) / 2) * width
        placed = [(j + offset, item) for j, item in enumerate(estimates) if item is not None]
        axes.errorbar(
            [at for at, _ in placed],
            [item.mean for _, item in placed],
            yerr=[
                [item.mean - item.low for _, item in placed],
                [item.high - item.mean for _, item in placed],
            ],
            fmt=MARKERS[i % len(MARKERS)],
            color=PALETTE[i % len(PALETTE)],
            markersize=5,
            capsize=2.5,
            elinewidth=1.1,
            label=name,
        )
    style_axes(axes, x=x, y=y, title=title)
    _label_groups(axes, labels)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=7.5)


def _label_groups(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def describe_spread(estimates: Sequence[Estimate | None]) -> str:
    """Says what the bars are."""
    found = [item for item in estimates if item is not None]
    spreads = {item.spread for item in found}
    if spreads == {"interval"}:
        return "one seed, 95 % interval"
    counts = sorted({item.num_runs for item in found})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    note = f"mean ± standard deviation of {runs} runs"
    return note if spreads == {"std"} else f"{note}, of one run 95 % interval"
