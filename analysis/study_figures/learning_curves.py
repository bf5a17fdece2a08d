"""Validation accuracy by epoch, and how much of the best robustness is lost at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.errors import MissingRunsError, UnsuitableRunsError
from analysis.style import LEGEND_BELOW, PALETTE, create_figure, show_percent, style_axes

__all__ = [
    "LearningCurve",
    "compute_learning_curves",
    "draw_learning_curves",
]

MetricsRow = Mapping[str, Any]


@dataclass(frozen=True)
class LearningCurve:
    """One run's accuracies by epoch, each in [0, 1], shape ``(num_epochs,)``.

    Attributes:
        name: The run.
        epochs: The epochs' numbers, from 1.
        train: Accuracy on the training images as trained, under attack if adversarially.
        natural: Accuracy on held-out images.
        robust: The same under PGD.
        best_epoch: The first epoch of the highest robust accuracy.
        robust_overfitting: By how much robust accuracy is lower in the last epoch than in that one
            (Rice et al., "Overfitting in adversarially robust deep learning", ICML 2020).
    """

    name: str
    epochs: NDArray[np.int64]
    train: NDArray[np.float64]
    natural: NDArray[np.float64]
    robust: NDArray[np.float64]
    best_epoch: int
    robust_overfitting: float


def compute_learning_curves(
    metrics: Mapping[str, Sequence[MetricsRow]],
) -> tuple[LearningCurve, ...]:
    """Collects the accuracies of runs, and finds their best epochs.

    Args:
        metrics: By run, the lines of its ``metrics.jsonl``.

    Raises:
        ValueError: If there is no run, or one without a finished epoch.
    """
    if not metrics:
        raise ValueError("learning curves need at least one run")
    return tuple(_compute_curve(name, rows) for name, rows in metrics.items())


def _compute_curve(name: str, rows: Sequence[MetricsRow]) -> LearningCurve:
    if not rows:
        raise MissingRunsError(f"run {name!r} has no finished epoch")

    def column(key: str) -> NDArray[np.float64]:
        return np.array([row[key] for row in rows], dtype=np.float64)

    epochs = np.array([row["epoch"] for row in rows], dtype=np.int64)
    robust = column("validation_robust")
    best = int(robust.argmax())
    return LearningCurve(
        name=name,
        epochs=epochs,
        train=column("train_accuracy"),
        natural=column("validation_natural"),
        robust=robust,
        best_epoch=int(epochs[best]),
        robust_overfitting=float(robust[best] - robust[-1]),
    )


def draw_learning_curves(curves: Sequence[LearningCurve]) -> Figure:
    """Draws robust accuracy in full and natural accuracy in thin lines, a colour a run.

    A circle marks the best epoch; from there to the last epoch a dashed line at the best accuracy
    shows what was lost, with the loss in percentage points at its end. Of one run the training
    accuracy is drawn too.

    Args:
        curves: At most as many as there are colours.

    Raises:
        ValueError: If there are none, or too many to tell apart.
    """
    if not 1 <= len(curves) <= len(PALETTE):
        raise UnsuitableRunsError(f"curves must be 1 to {len(PALETTE)}, got {len(curves)}")
    figure = create_figure(6.4, 3.8)
    axes = figure.add_subplot()
    for color, curve in zip(PALETTE, curves, strict=False):
        _draw_curve(axes, curve, color, is_alone=len(curves) == 1)
    style_axes(
        axes,
        x="epoch",
        y="accuracy on held-out images",
        title="full: under PGD, thin: natural; circle: best epoch, dashed: lost since",
    )
    show_percent(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(**{**LEGEND_BELOW, "ncols": 2})
    return figure


def _draw_curve(axes: Axes, curve: LearningCurve, color: str, *, is_alone: bool) -> None:
    axes.plot(curve.epochs, curve.robust, color=color, linewidth=1.7, label=curve.name)
    axes.plot(curve.epochs, curve.natural, color=color, linewidth=0.8)
    if is_alone:
        axes.plot(
            curve.epochs,
            curve.train,
            color="#8A9099",
            linewidth=0.9,
            linestyle=":",
            label="training",
        )
    best = float(curve.robust.max())
    axes.plot([curve.best_epoch], [best], marker="o", markersize=5, color=color)
    last = int(curve.epochs[-1])
    if curve.robust_overfitting > 0:
        axes.plot(
            [curve.best_epoch, last], [best, best], color=color, linewidth=0.9, linestyle="--"
        )
        axes.annotate(
            f"\N{MINUS SIGN}{100 * curve.robust_overfitting:.1f}",
            (last, best),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            color=color,
            va="center",
        )
