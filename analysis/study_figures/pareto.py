"""Pareto fronts: which runs no other beats in both of two metrics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.errors import MissingRunsError
from analysis.style import PALETTE, create_figure, show_percent, style_axes
from nasbench_at.records.naming.labels import metric_label

__all__ = ["Pareto", "compute_pareto", "draw_pareto"]


@dataclass(frozen=True)
class Pareto:
    """Runs in the plane of two metrics.

    Attributes:
        run_ids: Their names, shape ``(num_runs,)`` as all arrays here.
        x: First metric.
        y: Second metric.
        on_front: Whether no other run is at least as good in both and better in one.
        x_name: Column of the first metric.
        y_name: Column of the second.
        minimize: Which of the two are better when lower.
    """

    run_ids: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    on_front: NDArray[np.bool_]
    x_name: str
    y_name: str
    minimize: frozenset[str]


def compute_pareto(
    frame: pd.DataFrame, x: str = "natural", y: str = "pgd", *, minimize: Collection[str] = ()
) -> Pareto:
    """Finds the runs that no other dominates.

    Args:
        frame: A row a run, such as :meth:`nasbench_at.records.Benchmark.to_frame` returns. Runs
            without one of the metrics do not count.
        x: Column of a metric.
        y: Column of another.
        minimize: Those of the two that are better when lower, such as ``num_params``.

    Raises:
        MissingRunsError: If no run has both metrics.
        ValueError: If ``minimize`` names another column.
    """
    if others := set(minimize) - {x, y}:
        raise ValueError(f"minimize must name {x!r} or {y!r}, got {', '.join(sorted(others))}")
    missing = [name for name in (x, y) if name not in frame.columns]
    known = frame.iloc[:0] if missing else frame.dropna(subset=[x, y])
    if known.empty:
        raise MissingRunsError(f"a Pareto front needs runs that have both {x!r} and {y!r}")
    values = known[[x, y]].to_numpy(dtype=np.float64)
    signs = np.array([-1.0 if name in minimize else 1.0 for name in (x, y)])
    return Pareto(
        run_ids=tuple(map(str, known.get("run_id", known.index))),
        x=values[:, 0],
        y=values[:, 1],
        on_front=_non_dominated(values * signs),
        x_name=x,
        y_name=y,
        minimize=frozenset(minimize),
    )


def _non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of ``(num_runs, 2)``, higher being better, no other row dominates."""
    better = np.lexsort((-values[:, 1], -values[:, 0]))
    result = np.zeros(len(values), dtype=bool)
    highest, at = -np.inf, -np.inf
    for i in better:  # by x from the best on: what follows must have a higher y
        first, second = values[i]
        if second > highest or (second == highest and first == at):
            result[i], highest, at = True, second, first
    return result


def draw_pareto(pareto: Pareto) -> Figure:
    """Draws the runs, and the front as steps through those on it.

    Returns:
        A figure of its own canvas, which no global state refers to.
    """
    figure = create_figure()
    axes = figure.add_subplot()
    others = ~pareto.on_front
    axes.scatter(pareto.x[others], pareto.y[others], s=16, color="#8A9099", linewidths=0)
    order = np.argsort(pareto.x[pareto.on_front], kind="stable")
    x, y = pareto.x[pareto.on_front][order], pareto.y[pareto.on_front][order]
    where = "post" if pareto.x_name in pareto.minimize else "pre"
    axes.step(x, y, where=where, color=PALETTE[0], linewidth=1.2)  # type: ignore[arg-type]
    axes.scatter(x, y, s=26, color=PALETTE[0], zorder=3, label="no other run beats it in both")
    title = f"{len(pareto.x)} runs, {int(pareto.on_front.sum())} on the front"
    style_axes(axes, x=_axis(pareto.x_name), y=_axis(pareto.y_name), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    for name, axis in ((pareto.x_name, axes.xaxis), (pareto.y_name, axes.yaxis)):
        if _is_accuracy(name):
            show_percent(axis)
    axes.legend(frameon=False, fontsize=7.5)
    return figure


def _is_accuracy(name: str) -> bool:
    return metric_label(name) != name


def _axis(name: str) -> str:
    return f"{metric_label(name)} accuracy" if _is_accuracy(name) else name.replace("_", " ")
