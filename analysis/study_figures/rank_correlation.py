"""Whether networks that are better on natural images are better under attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.comparability import (
    TECHNICAL_KEYS,
    check_evaluated_alike,
    group_by,
    identity_without,
)
from analysis.errors import MissingRunsError
from analysis.study_figures.estimates import describe_setting
from analysis.style import PALETTE, create_figure, style_axes
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import metric_label
from nasbench_at.records.naming.variants import name_variants

__all__ = ["RankCorrelation", "compute_rank_correlation", "draw_rank_correlation", "spearman"]

_FIGURE = "the correlation of ranks"
_MIN_NETWORKS = 4
_NUM_RESAMPLES = 1_000
_CHUNK = 100  # resamples at once, so that thousands of networks need little memory
_MAX_NAMES = 40


@dataclass(frozen=True)
class RankCorrelation:
    """Two rankings of the same networks, by their mean accuracies over seeds.

    Attributes:
        networks: Names of the networks, by what differs between them.
        run_ids: The runs of each.
        natural_ranks: Ranks by natural accuracy, 1 the best, shape ``(num_networks,)``; equal ones
            share their mean.
        robust_ranks: Ranks under the attack.
        spearman: Spearman's correlation of the two, in [-1, 1]; NaN if one of them is constant.
        interval: Its 95 % interval: percentiles of a bootstrap over networks, so that seeds of one
            network, which depend on each other, are drawn together.
        attack: Name of the attack.
        setting: How the networks were attacked.
    """

    networks: tuple[str, ...]
    run_ids: tuple[tuple[str, ...], ...]
    natural_ranks: NDArray[np.float64]
    robust_ranks: NDArray[np.float64]
    spearman: float
    interval: tuple[float, float]
    attack: str
    setting: str


def compute_rank_correlation(records: Sequence[Record], attack: str = "pgd") -> RankCorrelation:
    """Ranks networks by natural and by robust accuracy.

    Runs that differ in their seeds only are one network, of their mean accuracies.

    Args:
        records: Runs, evaluated alike.
        attack: Whose accuracy is the robust one.

    Raises:
        MissingRunsError: If fewer than four networks were evaluated by both.
        ValueError: If the runs were evaluated differently.
    """
    runs = [r for r in records if r.was_evaluated_by("natural") and r.was_evaluated_by(attack)]
    networks = list(group_by(runs, lambda r: identity_without(r, TECHNICAL_KEYS)).values())
    if len(networks) < _MIN_NETWORKS:
        raise MissingRunsError(
            f"{_FIGURE} needs {_MIN_NETWORKS} networks evaluated by natural and {attack}, got "
            f"{len(networks)}"
        )
    check_evaluated_alike(runs, ("natural", attack), _FIGURE)
    natural, robust = (
        np.array([mean(r.accuracy(metric) for r in group) for group in networks])
        for metric in ("natural", attack)
    )
    return RankCorrelation(
        networks=tuple(name_variants([group[0].config for group in networks])),
        run_ids=tuple(tuple(record.run_id for record in group) for group in networks),
        natural_ranks=_rank(-natural[None])[0],
        robust_ranks=_rank(-robust[None])[0],
        spearman=float(spearman(natural[None], robust[None])[0]),
        interval=_bootstrap(natural, robust),
        attack=attack,
        setting=describe_setting(runs[0], attack, with_method=False),
    )


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks within each row, 1 the lowest; equal values share their mean."""
    return np.array(pd.DataFrame(values).rank(axis=1), dtype=np.float64)


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns Spearman's correlations of rows, shape ``(num_rows,)``; NaN where one is constant.

    Args:
        first: Shape ``(num_rows, networks)``.
        second: Likewise.
    """
    one, other = (_rank(values) for values in (first, second))
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = (one * other).sum(axis=1) / np.sqrt(
            (one**2).sum(axis=1) * (other**2).sum(axis=1)
        )
    return found


def _bootstrap(natural: NDArray[np.float64], robust: NDArray[np.float64]) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(_NUM_RESAMPLES // _CHUNK):
        draws = generator.integers(len(natural), size=(_CHUNK, len(natural)))
        found.append(spearman(natural[draws], robust[draws]))
    values = np.concatenate(found)
    known = values[np.isfinite(values)]  # of draws of one network alone there is no correlation
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def draw_rank_correlation(ranks: RankCorrelation) -> Figure:
    """Draws a point a network, its two ranks as coordinates, the best at the top right.

    At the right each row of points is named; of very many networks the most robust ones are.
    """
    count = len(ranks.networks)
    size = max(3.4, 1.2 + 0.16 * min(count, _MAX_NAMES))
    figure = create_figure(size + 3.0, size + 0.6)
    axes = figure.add_subplot()
    axes.plot([1, count], [1, count], color="#8A9099", linewidth=0.8, dashes=(3, 3))
    axes.scatter(ranks.natural_ranks, ranks.robust_ranks, s=22, color=PALETTE[0], linewidths=0)
    low, high = ranks.interval
    style_axes(
        axes,
        x="rank by natural accuracy",
        y=f"rank under {metric_label(ranks.attack)}",
        title=f"{ranks.setting}; {count} networks, means over seeds\nSpearman's correlation "
        f"{ranks.spearman:.2f}, 95 % interval {low:.2f} to {high:.2f} (bootstrap over networks)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_xaxis()
    axes.invert_yaxis()
    axes.set_aspect("equal")
    _name_rows(axes, ranks)
    return figure


def _name_rows(axes: Axes, ranks: RankCorrelation) -> None:
    rows: dict[float, list[str]] = {}
    for rank, name in sorted(zip(ranks.robust_ranks, ranks.networks, strict=True)):
        if sum(map(len, rows.values())) < _MAX_NAMES:
            rows.setdefault(float(rank), []).append(name)
    right = axes.secondary_yaxis("right")
    right.set_yticks(list(rows), [" = ".join(names) for names in rows.values()], fontsize=7)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
