"""Attacks carried from one network to another, which also tells of masked gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack
from analysis.errors import UnsuitableRunsError
from analysis.run_images import first_images
from analysis.style import INK, PALETTE, create_figure, style_axes
from nasbench_at.attacks import PGD_BY_NORM, Attack, attack_mode, check_inputs
from nasbench_at.evaluation.comparison import compare_outcomes
from nasbench_at.evaluation.runs import Run
from nasbench_at.runtime.seeding import make_generator

__all__ = ["Transfer", "compute_run_transfer", "compute_transfer", "draw_transfer"]

STEPS = 20
SIGNIFICANT = 0.05
"""Probability, over all pairs together, of a warning where nothing is masked."""
_BATCH = 128


@dataclass(frozen=True)
class Transfer:
    """Networks attacked by images that were made against each of them; M networks, N images.

    Attributes:
        names: The networks.
        outcomes: Whether the target (second axis) gets an image right that was made against the
            source (first axis), shape ``(M, M, N)``.
        attack: The attack's settings.
    """

    names: tuple[str, ...]
    outcomes: NDArray[np.bool_]
    attack: Mapping[str, Any]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Accuracy by source (rows) and target (columns), in [0, 1], shape ``(M, M)``."""
        means: NDArray[np.float64] = self.outcomes.mean(axis=2)
        return means

    @property
    def masked(self) -> list[tuple[int, int]]:
        """Pairs of source and target for which the carried attack beats the target's own.

        An attack that follows a network's own gradients is at least as strong as one that follows
        another's, unless these gradients mislead it (Athalye et al., "Obfuscated Gradients Give a
        False Sense of Security", ICML 2018). McNemar's test, image by image, with Bonferroni's
        correction for the number of pairs.
        """
        count = len(self.names)
        found = []
        for source, target in np.argwhere(self.accuracy < np.diag(self.accuracy)).tolist():
            own, carried = self.outcomes[target, target], self.outcomes[source, target]
            if compare_outcomes(own, carried).p_value < SIGNIFICANT / (count * (count - 1)):
                found.append((source, target))
        return found


def compute_transfer(
    models: Mapping[str, nn.Module],
    images: Tensor,
    labels: Tensor,
    attack: Attack,
    *,
    seed: int = 0,
) -> Transfer:
    """Attacks each model, and shows the attacked images to all of them.

    All start from the same random points. The models are as before afterwards.

    Args:
        models: By name, at least two.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        attack: The attack.
        seed: Of the attack.

    Raises:
        ValueError: If there are fewer than two models, or images or labels are not usable.
    """
    if len(models) < 2:
        raise ValueError(f"transfer needs at least 2 models, got {len(models)}")
    check_inputs(images, labels)
    outcomes = np.empty((len(models), len(models), len(labels)), dtype=np.bool_)
    for row, source in enumerate(models.values()):
        for number, start in enumerate(range(0, len(labels), _BATCH)):
            part = slice(start, start + _BATCH)
            generator = make_generator(seed, "perturbations", number, device=images.device)
            attacked = attack(source, images[part], labels[part], generator=generator)
            for column, target in enumerate(models.values()):
                with attack_mode(target), torch.no_grad():
                    right = target(attacked).argmax(dim=1) == labels[part]
                outcomes[row, column, part] = right.cpu().numpy()
    return Transfer(tuple(models), outcomes, attack.settings())


def compute_run_transfer(
    runs: Mapping[str, Run], *, num_images: int | None = None, seed: int = 0
) -> Transfer:
    """Carries PGD-20 between runs, on the test images that they have in common.

    Args:
        runs: By name, at least two, of one data set, norm and radius.
        num_images: How many images; all by default.
        seed: Of the attack.

    Raises:
        ValueError: If a folder or an argument is not usable.
        UnsuitableRunsError: If there are fewer than two runs, or they differ in these.
    """
    opened = list(runs.values())
    if len(opened) < 2:
        raise UnsuitableRunsError(f"transfer needs at least 2 runs, got {len(opened)}")
    first = opened[0]
    for key in ("data", "norm", "eps"):
        values = list(dict.fromkeys(getattr(run.config, key) for run in opened))
        if len(values) > 1:
            raise UnsuitableRunsError(
                f"transfer needs runs of one {key}, got {' and '.join(map(str, values))}"
            )
    attack = PGD_BY_NORM[first.config.norm](first.config.eps, steps=STEPS)
    images, labels = first_images(first, "test", num_images)
    models = {name: run.network for name, run in runs.items()}
    return compute_transfer(models, images, labels, attack, seed=seed)


def draw_transfer(transfer: Transfer) -> Figure:
    """Draws accuracy by source and target; a frame marks a pair that tells of masked gradients."""
    names, accuracy = transfer.names, transfer.accuracy
    size = 2.2 + 0.55 * len(names)
    figure = create_figure(size + 0.6, size)
    axes = figure.add_subplot()
    masked = transfer.masked
    style_axes(
        axes,
        x="network attacked",
        y="made against",
        title=f"{describe_attack(transfer.attack)}, {transfer.outcomes.shape[2]} images; "
        + (f"{len(masked)} framed: stronger than the network's own" if masked else "none masked"),
    )
    axes.grid(False)
    axes.imshow(accuracy, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(accuracy):
        color = "white" if value > 0.5 else INK
        text = f"{100 * value:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=color)
    _frame(axes, masked)
    numbers = [str(number) for number in range(1, len(names) + 1)]
    rows = [f"{name}  {number}" for name, number in zip(names, numbers, strict=True)]
    axes.set_xticks(range(len(names)), numbers, fontsize=7)
    axes.set_yticks(range(len(names)), rows, fontsize=7)
    return figure


def _frame(axes: Axes, pairs: Sequence[tuple[int, int]]) -> None:
    for row, column in pairs:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=PALETTE[5], linewidth=2))
