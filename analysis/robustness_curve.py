"""Accuracy against the radius of the attack, with intervals."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.errors import MissingRunsError
from analysis.style import MARKERS, PALETTE, create_figure, show_percent, style_axes
from nasbench_at.records import AttackResult, Record
from nasbench_at.records.conditions import images_of
from nasbench_at.records.naming.variants import name_run

__all__ = [
    "CurveLine",
    "RobustnessCurve",
    "compute_robustness_curve",
    "draw_robustness_curve",
]

_LABELS = {
    "fgsm": "FGSM",
    "pgd": "PGD-20",
    "cw": "C&W-30",
    "aa": "AutoAttack",
    "worst_case": "worst case",
}


@dataclass(frozen=True)
class CurveLine:
    """One attack's accuracies.

    Attributes:
        attack: Name of the row.
        eps: Radii in order, from 0, where the accuracy is the natural one.
        accuracy: Accuracies in [0, 1].
        low: Lower ends of their 95 % intervals.
        high: Upper ends.
    """

    attack: str
    eps: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class RobustnessCurve:
    """Accuracies of one network by attack and radius.

    Attributes:
        title: The network and its seed.
        data: What it was evaluated on.
        num_samples: On how many images.
        norm: Threat model.
        lines: One an attack.
        left_out: Other attacks of several radii, but on other images, of another norm or settings.
    """

    title: str
    data: str
    num_samples: int
    norm: str
    lines: tuple[CurveLine, ...]
    left_out: tuple[str, ...]


def compute_robustness_curve(record: Record) -> RobustnessCurve:
    """Collects the accuracies of a record that was evaluated at several radii.

    They are of one norm and the same images, the natural accuracy too. AutoAttack's parts are left
    out. The worst case is too where there is one attack only.

    Raises:
        ValueError: If the record holds no curve.
    """
    curves = {name: rows for name, rows in record.curves.items() if "/" not in name}
    if not curves:
        raise MissingRunsError(f"run {record.run_id!r} was not evaluated at several eps")
    left_out = _find_others(record, curves)
    if len(curves) == 2:
        curves.pop("worst_case", None)
    first = next(iter(curves.values()))[0]
    latest_first = reversed(record.all_results)
    on_same = (row for row in latest_first if images_of(row) == images_of(first))
    natural = next((row for row in on_same if row.attack == "natural"), None)
    return RobustnessCurve(
        title=name_run(record.config),
        data=first.data,
        num_samples=first.num_samples,
        norm=first.norm or "",
        lines=tuple(_compute_line(name, rows, natural) for name, rows in curves.items()),
        left_out=left_out,
    )


def _find_others(record: Record, curves: Container[str]) -> tuple[str, ...]:
    """Attacks that were run at several radii and have no curve among these."""
    radii: dict[str, set[float]] = {}
    for row in record.all_results:
        if row.eps is not None and "/" not in row.attack and row.attack not in curves:
            radii.setdefault(row.attack, set()).add(row.eps)
    return tuple(name for name, found in radii.items() if len(found) > 1)


def _compute_line(
    attack: str, curve: Sequence[AttackResult], natural: AttackResult | None
) -> CurveLine:
    by_eps = {row.eps: row for row in curve if row.eps is not None}
    if natural is not None:
        by_eps.setdefault(0.0, natural)
    radii = sorted(by_eps)
    rows = [by_eps[eps] for eps in radii]
    low, high = np.array([row.interval for row in rows], dtype=np.float64).T
    return CurveLine(
        attack=attack,
        eps=np.array(radii, dtype=np.float64),
        accuracy=np.array([row.accuracy for row in rows], dtype=np.float64),
        low=low,
        high=high,
    )


def draw_robustness_curve(curve: RobustnessCurve) -> Figure:
    """Draws a curve: a line an attack, its 95 % intervals as a band."""
    figure = create_figure()
    axes = figure.add_subplot()
    for i, line in enumerate(curve.lines):
        color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        axes.fill_between(line.eps, line.low, line.high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            line.eps,
            line.accuracy,
            color=color,
            marker=marker,
            markersize=4.5,
            linewidth=1.6,
            label=_LABELS.get(line.attack, line.attack),
        )
    _style(axes, curve)
    return figure


def _style(axes: Axes, curve: RobustnessCurve) -> None:
    unit = "of the pixel range" if curve.norm == "Linf" else "Euclidean"
    symbol = "$L_\\infty$" if curve.norm == "Linf" else "$L_2$"
    title = f"{curve.title} on {curve.data}, {curve.num_samples:,} images"
    if curve.left_out:
        names = ", ".join(_LABELS.get(name, name) for name in curve.left_out)
        title += f"; left out, of other images, norm or settings: {names}"
    style_axes(
        axes,
        x=f"{symbol} radius ε ({unit})",
        y="accuracy, 95 % interval",
        title=fill(title, 64),
    )
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    show_percent(axes.yaxis)
    axes.legend(frameon=False, fontsize=8)
