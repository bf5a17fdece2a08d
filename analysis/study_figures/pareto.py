"""Pareto fronts: which runs no other beats in both natural and robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.comparability import check_evaluated_alike
from analysis.errors import MissingRunsError
from analysis.style import PALETTE, create_figure, show_percent, style_axes
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import metric_label

__all__ = ["Pareto", "compute_pareto", "draw_pareto"]


@dataclass(frozen=True)
class Pareto:
    """Runs in the plane of natural and robust accuracy.

    Attributes:
        run_ids: Their names, shape ``(num_runs,)`` as all arrays here.
        natural: Natural accuracies.
        robust: Accuracies under the attack.
        on_front: Whether no other run is at least as good in both and better in one.
        attack: Name of the attack.
    """

    run_ids: tuple[str, ...]
    natural: NDArray[np.float64]
    robust: NDArray[np.float64]
    on_front: NDArray[np.bool_]
    attack: str


def compute_pareto(records: Sequence[Record], attack: str = "pgd") -> Pareto:
    """Finds the runs that no other dominates.

    Args:
        records: Runs, evaluated alike; those without one of the two accuracies do not count.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If no run has both accuracies.
        ValueError: If the runs were evaluated differently.
    """
    runs = [r for r in records if r.was_evaluated_by("natural") and r.was_evaluated_by(attack)]
    if not runs:
        raise MissingRunsError(f"a Pareto front needs runs that have both 'natural' and {attack!r}")
    check_evaluated_alike(runs, ("natural", attack), "a Pareto front")
    natural, robust = (
        np.array([run.accuracy(metric) for run in runs]) for metric in ("natural", attack)
    )
    return Pareto(
        run_ids=tuple(run.run_id for run in runs),
        natural=natural,
        robust=robust,
        on_front=_non_dominated(np.stack([natural, robust], axis=1)),
        attack=attack,
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
    """Draws the runs, and the front as steps through those on it."""
    figure = create_figure()
    axes = figure.add_subplot()
    others = ~pareto.on_front
    axes.scatter(pareto.natural[others], pareto.robust[others], s=16, color="#8A9099", linewidths=0)
    order = np.argsort(pareto.natural[pareto.on_front], kind="stable")
    x, y = pareto.natural[pareto.on_front][order], pareto.robust[pareto.on_front][order]
    axes.step(x, y, where="pre", color=PALETTE[0], linewidth=1.2)
    axes.scatter(x, y, s=26, color=PALETTE[0], zorder=3, label="no other run beats it in both")
    style_axes(
        axes,
        x=f"{metric_label('natural')} accuracy",
        y=f"{metric_label(pareto.attack)} accuracy",
        title=f"{len(pareto.run_ids)} runs, {int(pareto.on_front.sum())} on the front",
    )
    show_percent(axes.xaxis, axes.yaxis)
    axes.legend(frameon=False, fontsize=7.5)
    return figure
