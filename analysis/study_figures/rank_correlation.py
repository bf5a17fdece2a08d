"""Whether networks that are better on natural images are better under attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.naming import metric_label
from analysis.selection import MissingRunsError, check_evaluated_alike
from analysis.study_figures.estimates import describe_setting
from analysis.style import PALETTE, create_figure, style_axes
from nasbench_at.records import Record

__all__ = ["RankCorrelation", "compute_rank_correlation", "draw_rank_correlation"]

_FIGURE = "the correlation of ranks"
_MIN_RUNS = 4


@dataclass(frozen=True)
class RankCorrelation:
    """Two rankings of the same runs.

    Attributes:
        run_ids: The runs, shape ``(num_runs,)`` as the arrays.
        natural_ranks: Ranks by natural accuracy, 1 the best; equal ones share their mean.
        robust_ranks: Ranks under the attack.
        spearman: Spearman's correlation of the two, in [-1, 1]; NaN if one of them is constant.
        interval: Its 95 % interval, after Bonett and Wright, "Sample size requirements for
            estimating Pearson, Kendall and Spearman correlations", Psychometrika 2000.
        attack: Name of the attack.
        setting: How the networks were attacked.
    """

    run_ids: tuple[str, ...]
    natural_ranks: NDArray[np.float64]
    robust_ranks: NDArray[np.float64]
    spearman: float
    interval: tuple[float, float]
    attack: str
    setting: str


def compute_rank_correlation(records: Sequence[Record], attack: str = "pgd") -> RankCorrelation:
    """Ranks runs by natural and by robust accuracy.

    Args:
        records: Runs, evaluated alike.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If fewer than four runs were evaluated by both.
        ValueError: If they were evaluated differently.
    """
    runs = [r for r in records if r.was_evaluated_by("natural") and r.was_evaluated_by(attack)]
    if len(runs) < _MIN_RUNS:
        raise MissingRunsError(
            f"{_FIGURE} needs {_MIN_RUNS} runs evaluated by natural and {attack}, got {len(runs)}"
        )
    check_evaluated_alike(runs, ("natural", attack), _FIGURE)
    natural, robust = (
        pd.Series([r.accuracy(metric) for r in runs]).rank(ascending=False)
        for metric in ("natural", attack)
    )
    is_constant = natural.nunique() == 1 or robust.nunique() == 1
    spearman = math.nan if is_constant else float(natural.corr(robust))
    return RankCorrelation(
        run_ids=tuple(record.run_id for record in runs),
        natural_ranks=np.asarray(natural, dtype=np.float64),
        robust_ranks=np.asarray(robust, dtype=np.float64),
        spearman=spearman,
        interval=_interval(spearman, len(runs)),
        attack=attack,
        setting=describe_setting(runs[0], attack, with_method=False),
    )


def _interval(correlation: float, num_runs: int) -> tuple[float, float]:
    if math.isnan(correlation) or abs(correlation) > 1 - 1e-12:
        return correlation, correlation
    error = math.sqrt((1 + correlation**2 / 2) / (num_runs - 3))
    centre = math.atanh(correlation)
    return math.tanh(centre - 1.96 * error), math.tanh(centre + 1.96 * error)


def draw_rank_correlation(ranks: RankCorrelation) -> Figure:
    """Draws a point a run, its two ranks as coordinates, the best at the top right.

    Returns:
        A figure of its own canvas, which no global state refers to.
    """
    figure = create_figure(4.6, 4.2)
    axes = figure.add_subplot()
    axes.plot(
        [1, len(ranks.run_ids)],
        [1, len(ranks.run_ids)],
        color="#8A9099",
        linewidth=0.8,
        dashes=(3, 3),
    )
    axes.scatter(ranks.natural_ranks, ranks.robust_ranks, s=22, color=PALETTE[0], linewidths=0)
    low, high = ranks.interval
    style_axes(
        axes,
        x="rank by natural accuracy",
        y=f"rank under {metric_label(ranks.attack)}",
        title=f"{ranks.setting}\nSpearman's correlation {ranks.spearman:.2f}, "
        f"95 % interval {low:.2f} to {high:.2f}",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set_aspect("equal")
    return figure
