"""Means with the runs or the interval behind them: the drawing that several figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from analysis.study_figures.estimates import MIN_SEEDS, Estimate
from analysis.style import MARKERS, PALETTE, show_percent, style_axes

__all__ = ["describe_spread", "draw_estimate", "draw_points"]


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
        color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        offset = (i - (len(series) - 1) / 2) * width
        axes.plot([], [], marker, color=color, markersize=5, label=name)
        for j, item in enumerate(estimates):
            if item is not None:
                draw_estimate(axes, j + offset, item, color, marker, beside=0.18 * width)
    style_axes(axes, x=x, y=y, title=title)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="x")
    show_percent(axes.yaxis)


def draw_estimate(
    axes: Axes,
    place: float,
    item: Estimate,
    color: str,
    marker: str,
    *,
    beside: float = 0.0,
    is_vertical: bool = True,
) -> None:
    """Draws a mean with its interval, or, of a few runs, with the runs as hollow points beside it.

    Args:
        axes: Where to.
        place: The other coordinate.
        item: The accuracy.
        color: Its colour.
        marker: Its marker.
        beside: How far from the mean's place its runs are drawn.
        is_vertical: Whether accuracies run upwards.
    """

    def turn(at: float, accuracy: float) -> tuple[float, float]:
        return (at, accuracy) if is_vertical else (accuracy, at)

    axes.plot(*turn(place, item.mean), marker, color=color, markersize=5)
    if item.interval is not None:
        line = zip(*(turn(place, end) for end in item.interval), strict=True)
        axes.plot(*line, color=color, linewidth=1.1, marker="_" if is_vertical else "|")
        return
    for value in item.values if len(item.values) > 1 else ():
        at = turn(place + beside, value)
        axes.plot(*at, "o", color=color, markersize=3, fillstyle="none", markeredgewidth=0.8)


def describe_spread(estimates: Sequence[Estimate | None], *, of: str = "seed") -> str:
    """Says what the bars and the hollow points are.

    Args:
        estimates: What is drawn.
        of: What the values of an estimate are of.
    """
    drawn = [item for item in estimates if item is not None]
    counts = sorted({len(item.values) for item in drawn})
    has_bare = any(item.interval is None for item in drawn)
    few = [count for count in counts if 1 < count < MIN_SEEDS]
    many = [count for count in counts if count >= MIN_SEEDS]
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    notes = [f"mean over {span} {of}s"] if few or many else []
    if many:
        notes.append("bar: 95 % interval" + (f" from {MIN_SEEDS} {of}s on" if has_bare else ""))
    if few:
        notes.append(f"hollow: each {of}" + (f" of fewer than {MIN_SEEDS}" if many else ""))
    if any(len(item.values) == 1 and item.interval is not None for item in drawn):
        notes.append(f"one {of}: 95 % interval over its images")
    return "; ".join(notes)
