"""How reliably a way of training ranks networks, by the hours that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.comparability import (
    TECHNICAL_KEYS,
    check_evaluated_alike,
    check_one_number,
    group_by,
    identity_without,
)
from analysis.errors import MissingRunsError, UnsuitableRunsError
from analysis.style import (
    LEGEND_BELOW,
    MARKERS,
    PALETTE,
    create_figure,
    show_percent,
    style_axes,
)
from nasbench_at.records import Record, Reliability, measure_reliability
from nasbench_at.records.naming.labels import metric_label
from nasbench_at.records.naming.variants import NETWORK_KEYS, name_trainings

__all__ = ["ReliabilityCurve", "compute_reliability", "draw_reliability"]

_FIGURE = "the reliability of a ranking"
_MANY_SEEDS = 64
_TRUSTED = 0.8
"""A reliability from which on means may be ranked."""


@dataclass(frozen=True)
class ReliabilityCurve:
    """One way of training and evaluating networks.

    Attributes:
        name: What tells it from the others.
        reliability: How the networks' accuracies vary over networks and seeds.
        hours: Mean hours of training a run.
        attack: Whose accuracy ranks the networks.
    """

    name: str
    reliability: Reliability
    hours: float
    attack: str


def compute_reliability(
    records: Sequence[Record], attack: str = "pgd"
) -> tuple[ReliabilityCurve, ...]:
    """Groups runs by the way of training, and measures how well each tells networks apart.

    Runs that differ in their seeds only are of one network. Networks that were trained once tell
    nothing of the seeds and are left out.

    Args:
        records: Runs.
        attack: Whose accuracy ranks the networks.

    Raises:
        MissingRunsError: If no way of training has two networks with two seeds each.
        ValueError: If runs of one way of training were evaluated differently.
    """
    evaluated = [
        record
        for record in records
        if record.was_evaluated_by(attack) and "train_seconds" in record.provenance
    ]
    ways = [
        [runs for runs in networks if len(runs) > 1]
        for way in group_by(
            evaluated, lambda r: identity_without(r, NETWORK_KEYS | TECHNICAL_KEYS)
        ).values()
        for networks in [group_by(way, lambda r: identity_without(r, TECHNICAL_KEYS)).values()]
    ]
    ways = [networks for networks in ways if len(networks) > 1]
    if not ways:
        raise MissingRunsError(
            f"{_FIGURE} needs two networks that were trained alike and evaluated by {attack}, "
            f"each with two seeds; none of {len(records)} records are such"
        )
    names = name_trainings([networks[0][0].config for networks in ways], TECHNICAL_KEYS)
    return tuple(
        _measure(networks, name, attack) for networks, name in zip(ways, names, strict=True)
    )


def _measure(networks: Sequence[Sequence[Record]], name: str, attack: str) -> ReliabilityCurve:
    runs = [record for network in networks for record in network]
    check_evaluated_alike(runs, (attack,), _FIGURE)
    for network in networks:
        check_one_number(network)
    return ReliabilityCurve(
        name=name,
        reliability=measure_reliability(
            [[record.accuracy(attack) for record in network] for network in networks]
        ),
        hours=mean(record.provenance["train_seconds"] for record in runs) / 3600,
        attack=attack,
    )


def draw_reliability(curves: Sequence[ReliabilityCurve]) -> Figure:
    """Draws the reliability of means over more and more seeds against the hours that these take.

    A point a curve is what was run, with its 95 % interval; the rest follows from the variances.

    Args:
        curves: At most as many as there are colours.

    Returns:
        A figure of its own canvas, which no global state refers to.

    Raises:
        UnsuitableRunsError: If there are too many to tell apart.
    """
    if len(curves) > len(PALETTE):
        raise UnsuitableRunsError(f"curves must be 1 to {len(PALETTE)}, got {len(curves)}")
    figure = create_figure(6.4, 4.0)
    axes = figure.add_subplot()
    for curve, color, marker in zip(curves, PALETTE, cycle(MARKERS), strict=False):
        _draw_curve(axes, curve, color, marker)
    first = curves[0]
    networks = {curve.reliability.num_networks for curve in curves}
    style_axes(
        axes,
        x="hours of training a network, all its seeds",
        y="reliability of the mean",
        title=f"{metric_label(first.attack)}, {'/'.join(map(str, sorted(networks)))} networks; "
        "points: as run, with their 95 % intervals",
    )
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    show_percent(axes.yaxis)
    figure.legend(**{**LEGEND_BELOW, "ncols": 1})
    return figure


def _draw_curve(axes: Axes, curve: ReliabilityCurve, color: str, marker: str) -> None:
    found = curve.reliability
    seeds = np.geomspace(1, _MANY_SEEDS, 100)
    expected = [found.of_means(number) for number in seeds]
    axes.plot(curve.hours * seeds, expected, color=color, linewidth=1.3)
    low, high = found.interval
    value = found.value
    axes.errorbar(
        [curve.hours * found.num_seeds],
        [value],
        yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
        color=color,
        marker=marker,
        markersize=5,
        capsize=2.5,
        linewidth=1,
        label=_describe(curve),
    )


def _describe(curve: ReliabilityCurve) -> str:
    """Says what was found of a way of training, and what a trustworthy ranking would take."""
    found = curve.reliability
    measured = f"{found.value:.2f} with {found.num_seeds:.3g} seeds"
    needed = found.seeds_for(_TRUSTED)
    if needed is None:
        outlook = "networks do not differ"
    else:
        outlook = f"{_TRUSTED:g} with {needed}, {needed * curve.hours:.2g} h"
    return ": ".join(filter(None, (curve.name, f"{measured}; {outlook}")))
