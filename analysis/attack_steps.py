"""Accuracy against the number of steps of an attack: has it converged?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack, predict_under_attack
from analysis.run_inputs import load_run_inputs
from analysis.style import PALETTE, create_figure, show_percent, style_axes
from nasbench_at.attacks import GradientAttack
from nasbench_at.records import wilson_interval
from nasbench_at.training.trainer import validation_attack

__all__ = [
    "AttackStepsCurve",
    "compute_attack_steps",
    "compute_run_attack_steps",
    "draw_attack_steps",
]

STEPS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class AttackStepsCurve:
    """Accuracy against the number of steps of an attack.

    Attributes:
        steps: Numbers of steps, ascending from 0, where the accuracy is the natural one.
        accuracy: Accuracies in [0, 1].
        low: Lower ends of their 95 % Wilson intervals.
        high: Upper ends.
        num_samples: Images behind each.
        attack: The attack's settings but for its steps.
    """

    steps: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    num_samples: int
    attack: Mapping[str, Any]


def compute_attack_steps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: GradientAttack,
    *,
    steps: Sequence[int] = STEPS,
    batch_size: int = 128,
    seed: int = 0,
) -> AttackStepsCurve:
    """Measures the accuracy under an attack of a growing number of steps, each from the start.

    The step size is the attack's own throughout. An accuracy that still falls at the end says that
    the attack has not converged; one that rises, that gradients are masked or steps too long.

    Args:
        model: Images to logits.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        attack: The attack; its own number of steps does not matter.
        steps: Numbers of steps, at least 1 and ascending; 0 is added.
        batch_size: Images at a time.
        seed: Of the attacks, all of which begin alike.

    Raises:
        ValueError: If ``steps`` are not such numbers, or images, labels or the batch size are not
            usable.
    """
    numbers = [0, *steps]
    if len(numbers) < 2 or any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ValueError(f"steps must be at least 1 and ascending, got {tuple(steps)}")
    settings = {key: value for key, value in attack.settings().items() if key != "steps"}
    counts = []
    for number in numbers:
        chosen = replace(attack, steps=number) if number else None
        batches = predict_under_attack(
            model, images, labels, chosen, batch_size=batch_size, seed=seed
        )
        counts.append(sum(int((logits.argmax(dim=1) == y).sum()) for y, logits in batches))
    size = len(labels)
    low, high = np.array([wilson_interval(count, size) for count in counts]).T
    accuracy = np.array(counts) / size
    return AttackStepsCurve(np.array(numbers), accuracy, low, high, size, settings)


def compute_run_attack_steps(
    path: str | Path,
    *,
    steps: Sequence[int] = STEPS,
    num_images: int | None = None,
    seed: int = 0,
    device: str = "auto",
    data_root: str | Path | None = None,
) -> AttackStepsCurve:
    """Measures a run's accuracy on its test images under PGD of a growing number of steps.

    Args:
        path: The run's folder.
        steps: As in :func:`compute_attack_steps`.
        num_images: How many images; all by default.
        seed: As there.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    inputs = load_run_inputs(
        path, part="test", num_images=num_images, device=device, data_root=data_root
    )
    attack = validation_attack(inputs.folder.config)
    return compute_attack_steps(
        inputs.model, inputs.images, inputs.labels, attack, steps=steps, seed=seed
    )


def draw_attack_steps(curve: AttackStepsCurve) -> Figure:
    """Draws the accuracy against the number of steps, its 95 % intervals as a band."""
    figure = create_figure()
    axes = figure.add_subplot()
    color = PALETTE[0]
    axes.fill_between(curve.steps, curve.low, curve.high, color=color, alpha=0.12, linewidth=0)
    axes.plot(curve.steps, curve.accuracy, color=color, marker="o", markersize=4.5, linewidth=1.6)
    style_axes(
        axes,
        x="steps of the attack",
        y="accuracy, 95 % interval",
        title=f"{describe_attack(curve.attack)}, {curve.num_samples:,} images",
    )
    # Linear from 0 to 1, so that the natural accuracy has a place.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(curve.steps, [str(step) for step in curve.steps])
    axes.set_ylim(0, 1.02)
    show_percent(axes.yaxis)
    return figure
