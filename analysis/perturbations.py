"""What an attack does to single images: before, after, and the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.attacked_predictions import describe_attack
from analysis.run_images import first_images
from analysis.style import INK, PALETTE, create_figure
from nasbench_at.attacks import Attack, attack_mode, check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.trainer import validation_attack

__all__ = [
    "Perturbations",
    "compute_perturbations",
    "compute_run_perturbations",
    "draw_perturbations",
]


@dataclass(frozen=True)
class Perturbations:
    """A few images before and after an attack.

    Attributes:
        images: Clean images in [0, 1], shape ``(N, C, H, W)``.
        adversarial: The attack's, of the same shape.
        labels: True classes, shape ``(N,)``.
        natural_prediction: Classes predicted of the clean images, shape ``(N,)``.
        natural_confidence: Their softmax probabilities, in [0, 1].
        adversarial_prediction: Classes predicted of the attack's images.
        adversarial_confidence: Their probabilities.
        attack: The attack's settings.
    """

    images: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    labels: NDArray[np.int64]
    natural_prediction: NDArray[np.int64]
    natural_confidence: NDArray[np.float32]
    adversarial_prediction: NDArray[np.int64]
    adversarial_confidence: NDArray[np.float32]
    attack: Mapping[str, Any]

    @property
    def difference(self) -> NDArray[np.float32]:
        """Adversarial minus clean, in [-1, 1]."""
        return self.adversarial - self.images


def compute_perturbations(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Attack, *, seed: int = 0
) -> Perturbations:
    """Attacks a handful of images.

    Args:
        model: Images to logits.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        attack: The attack.
        seed: Of the attack.

    Raises:
        ValueError: If images and labels are not usable.
    """
    check_inputs(images, labels)
    generator = make_generator(seed, "perturbations", 0, device=images.device)
    x_adv = attack(model, images, labels, generator=generator)
    with attack_mode(model), torch.no_grad():
        natural, adversarial = model(images).softmax(dim=1), model(x_adv).softmax(dim=1)
    (before, seen), (after, seen_after) = natural.max(dim=1), adversarial.max(dim=1)
    return Perturbations(
        images=images.cpu().numpy(),
        adversarial=x_adv.cpu().numpy(),
        labels=labels.cpu().numpy(),
        natural_prediction=seen.cpu().numpy(),
        natural_confidence=before.cpu().numpy(),
        adversarial_prediction=seen_after.cpu().numpy(),
        adversarial_confidence=after.cpu().numpy(),
        attack=attack.settings(),
    )


def compute_run_perturbations(
    run: Run,
    *,
    num_images: int = 6,
    attack: Attack | None = None,
    seed: int = 0,
) -> Perturbations:
    """Attacks a run's first test images.

    Args:
        run: The run.
        num_images: How many images.
        attack: The attack; by default the one that the run was selected by.
        seed: As in :func:`compute_perturbations`.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    images, labels = first_images(run, "test", num_images)
    chosen = attack or validation_attack(run.config)
    return compute_perturbations(run.network, images, labels, chosen, seed=seed)


def draw_perturbations(perturbations: Perturbations) -> Figure:
    """Draws a column an image: clean, attacked, and the difference, stretched to the full range.

    In the last row grey is no change; the title says by how much the difference is stretched.

    Raises:
        ValueError: If the images have another number of channels than 1 or 3.
    """
    num_images, channels = perturbations.images.shape[:2]
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels to be drawn, got {channels}")
    difference = perturbations.difference
    largest = float(np.abs(difference).max())
    scale = 0.5 / largest if largest > 0 else 1.0
    rows = (perturbations.images, perturbations.adversarial, 0.5 + scale * difference)
    figure = create_figure(width=1.1 * num_images + 0.6, height=4.2)
    grid = figure.subplots(3, num_images, squeeze=False)
    for axes_row, images in zip(grid, rows, strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            _show(axes, image)
    for i, label in enumerate(perturbations.labels):
        before, after = perturbations.natural_prediction[i], perturbations.adversarial_prediction[i]
        grid[0, i].set_title(
            f"{before} {perturbations.natural_confidence[i]:.0%}", **_style(before == label)
        )
        grid[1, i].set_title(
            f"{after} {perturbations.adversarial_confidence[i]:.0%}",
            **_style(after == label),
        )
        grid[2, i].set_xlabel(f"true: {label}", fontsize=7, color=INK)
    for axes, name in zip(grid[:, 0], ("clean", "attacked", "difference"), strict=True):
        axes.set_ylabel(name, fontsize=8, color=INK)
    figure.suptitle(
        f"{describe_attack(perturbations.attack)}; difference times {scale:.3g}",
        fontsize=8,
        color=INK,
    )
    return figure


def _show(axes: Axes, image: NDArray[np.float32]) -> None:
    pixels = image.transpose(1, 2, 0)
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(pixels.clip(0, 1))
    axes.set_xticks([])
    axes.set_yticks([])


def _style(is_correct: bool) -> dict[str, Any]:
    return {"fontsize": 7, "color": INK if is_correct else PALETTE[3]}
