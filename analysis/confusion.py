"""Which classes are taken for which, clean and under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack, predict_under_attack
from analysis.run_images import first_images
from analysis.style import INK, PALETTE, create_figure, show_percent, style_axes
from nasbench_at.attacks import Attack, check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.records import wilson_interval
from nasbench_at.training.trainer import validation_attack

__all__ = [
    "ConfusionMatrix",
    "compute_confusion",
    "compute_run_confusion",
    "draw_class_accuracy",
    "draw_confusion",
]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Which classes are taken for which.

    Attributes:
        counts: Images by true class (rows) and predicted class (columns), shape ``(K, K)``.
        attack: The attack's settings; empty for clean images.
    """

    counts: NDArray[np.int64]
    attack: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        """Images of each class, shape ``(K,)``."""
        sizes: NDArray[np.int64] = self.counts.sum(axis=1)
        return sizes

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """Share of correct images of each class, shape ``(K,)``; NaN for a class without images."""
        shares = np.full(len(self.counts), np.nan)
        np.divide(np.diag(self.counts), self.class_sizes, out=shares, where=self.class_sizes > 0)
        return shares

    @property
    def class_intervals(self) -> NDArray[np.float64]:
        """95 % Wilson intervals of them, shape ``(K, 2)``."""
        pairs = zip(np.diag(self.counts).tolist(), self.class_sizes.tolist(), strict=True)
        return np.array(
            [wilson_interval(right, size) if size else (np.nan, np.nan) for right, size in pairs]
        )


def compute_confusion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack | None = None,
    *,
    batch_size: int = 128,
    seed: int = 0,
) -> ConfusionMatrix:
    """Counts predictions by true class, on clean images or under an attack.

    Args:
        model: Images to logits.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        attack: The attack; None for the clean images.
        batch_size: Images at a time.
        seed: Of the attack.

    Raises:
        ValueError: If images, labels or the batch size are not usable.
    """
    counts: Tensor | None = None
    for y, logits in predict_under_attack(
        model, images, labels, attack, batch_size=batch_size, seed=seed
    ):
        num_classes = logits.shape[1]
        check_inputs(logits.new_zeros(len(y), 1), y, num_classes=num_classes)
        pairs = y * num_classes + logits.argmax(dim=1)
        batch = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, -1)
        counts = batch if counts is None else counts + batch
    assert counts is not None
    return ConfusionMatrix(counts.cpu().numpy(), {} if attack is None else attack.settings())


def compute_run_confusion(
    run: Run,
    *,
    natural: bool = False,
    num_images: int | None = None,
    seed: int = 0,
) -> ConfusionMatrix:
    """Counts a run's predictions of its test images under attack, or of the clean ones.

    Args:
        run: The run.
        natural: Whether to leave the images as they are; else the attack is the one that the run
            was selected by.
        num_images: How many images; all by default.
        seed: As in :func:`compute_confusion`.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    images, labels = first_images(run, "test", num_images)
    attack = None if natural else validation_attack(run.config)
    return compute_confusion(run.network, images, labels, attack, seed=seed)


def draw_confusion(confusion: ConfusionMatrix) -> Figure:
    """Draws a confusion matrix; the shade is the share of a row, the number the count."""
    counts = confusion.counts
    shares = counts / np.maximum(confusion.class_sizes, 1)[:, None]
    figure = create_figure(width=4.8, height=4.6)
    axes = figure.add_subplot()
    style_axes(
        axes,
        x="predicted class",
        y="true class",
        title=f"{describe_attack(confusion.attack)}, {counts.sum():,} images, "
        f"accuracy {confusion.accuracy:.1%}",
    )
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(count), ha="center", va="center", fontsize=6, color=color)
    classes = range(len(counts))
    axes.set_xticks(classes, map(str, classes), fontsize=7)
    axes.set_yticks(classes, map(str, classes), fontsize=7)
    return figure


def draw_class_accuracy(matrices: Sequence[ConfusionMatrix]) -> Figure:
    """Draws each class's accuracy with its 95 % interval, side by side for several attacks.

    Args:
        matrices: Of one network on the same images, such as clean and under attack.

    Raises:
        ValueError: If there are no matrices, or they are of different images.
    """
    sizes = {tuple(matrix.class_sizes.tolist()) for matrix in matrices}
    if len(sizes) != 1:
        raise ValueError(f"matrices must be of the same images, got {len(sizes)} different sets")
    figure = create_figure()
    axes = figure.add_subplot()
    positions = np.arange(len(matrices[0].counts))
    width = 0.8 / len(matrices)
    for i, matrix in enumerate(matrices):
        accuracy, intervals = matrix.class_accuracy, matrix.class_intervals
        axes.bar(
            positions + (i - (len(matrices) - 1) / 2) * width,
            accuracy,
            width=width,
            yerr=np.abs(intervals.T - accuracy),
            color=PALETTE[i % len(PALETTE)],
            error_kw={"elinewidth": 0.8, "ecolor": INK},
            label=describe_attack(matrix.attack),
        )
    total = f"{matrices[0].counts.sum():,} images"
    style_axes(axes, x="class", y="accuracy, 95 % interval", title=total)
    axes.set_xticks(positions, map(str, positions), fontsize=7)
    axes.set_ylim(0, 1.02)
    show_percent(axes.yaxis)
    # Below, since bars may reach the top anywhere.
    figure.legend(loc="outside lower center", ncols=len(matrices), frameon=False, fontsize=7)
    return figure
