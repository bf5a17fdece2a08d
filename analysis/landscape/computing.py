"""Measures the loss at the points of a grid around a network's weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.landscape.directions import RULES, draw_direction, moved_parameters
from analysis.landscape.grid import (
    Landscape,
    check_same_landscape,
    load_landscape,
    save_landscape,
)
from analysis.landscape.measuring import LossesAt, Measure, Point, measuring
from analysis.run_images import first_images
from nasbench_at.attacks import Attack, check_inputs
from nasbench_at.attacks.objectives import Objective, cross_entropy_objective, describe
from nasbench_at.evaluation.outcome_files import hash_images, hash_weights
from nasbench_at.evaluation.runs import Run
from nasbench_at.evaluation.standard_attacks import standard_attacks
from nasbench_at.records.naming.variants import name_run

__all__ = ["OnProgress", "compute_landscape", "compute_run_landscape"]

_NUM_IMAGES = 512
OnProgress = Callable[[int, int], None]
"""Is told how many of how many points of this call are done."""
Place = tuple[int, ...]


def compute_landscape(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    name: str = "",
    span: float = 1.0,
    points: int = 21,
    dimensions: int = 2,
    seed: int = 0,
    attack: Attack | None = None,
    loss: Objective = cross_entropy_objective,
    batch_size: int = 512,
    progress_file: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> Landscape:
    """Measures f(α, β) = L(W* + αδ + βη) on a grid, for two random directions δ and η.

    The directions are filter-normalised, see :func:`analysis.landscape.directions.draw_direction`.
    Biases, the parameters of norms, the attention logits and the running statistics of BatchNorm
    stay where they are. The model computes in eval mode, convolution and BatchNorm as one, and is
    left as it was, bit for bit. On the CPU small networks are copied for several threads.

    Args:
        model: Its weights are W*.
        images: In [0, 1], shape ``(N, ...)``.
        labels: Their classes, int64, shape ``(N,)``.
        name: Name of the model in the result.
        span: The grid reaches from −span to span; 1 adds to each filter one of its own norm.
        points: Points a direction, odd, at least 3.
        dimensions: 2, or 1 for a line along δ.
        seed: Seed of directions and attack.
        attack: L is the loss on its images, attacked at W*; None takes the images as they are.
        loss: Maps logits ``(N, C)`` and labels ``(N,)`` to values ``(N,)``; L is their mean.
        batch_size: Images of a forward pass. Large ones are faster, by half for tiny networks.
        progress_file: Keeps what is done after each row; a call that finds it goes on from there.
            Calls at the same time need a file each.
        on_progress: Is told after each point.

    Raises:
        ValueError: If an argument is out of range, or the file belongs to another landscape.

    Reference:
        Sec. 4.7 of the paper; Li et al., NeurIPS 2018.
    """
    _check_arguments(span, points, dimensions, batch_size)
    check_inputs(images, labels)
    device = next(iter(moved_parameters(model).values())).device
    settings = {
        "weights": hash_weights(model),
        "images": hash_images(images, labels),
        "num_images": len(images),
        "seed": seed,
        "loss": describe(loss),
        "attack": attack and {**attack.settings(), "batch_size": batch_size},
        "rules": RULES,
    }
    landscape = _start(_empty(name, span, points, dimensions, settings), progress_file)
    places = [
        place for place in np.ndindex(landscape.losses.shape) if np.isnan(landscape.losses[place])
    ]
    if not places:
        return landscape
    layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
    on_device = images.to(device, memory_format=layout), labels.to(device)
    measure = Measure(*on_device, loss, batch_size)
    if attack is not None:
        measure = measure.attacked(model, attack, seed)
    directions = [draw_direction(model, number, seed=seed) for number in range(dimensions)]
    with measuring(model, measure, directions) as losses_at:
        _fill(landscape, places, losses_at, progress_file, on_progress)
    return landscape


def compute_run_landscape(
    run: Run,
    *,
    num_images: int | None = None,
    adversarial: bool = False,
    **options: Any,
) -> Landscape:
    """Measures the landscape of a run's selected weights on its first test images.

    Args:
        run: The run.
        num_images: How many; by default 512, or all if there are fewer.
        adversarial: Attack them by the PGD-20 that the run is evaluated by, at its own radius.
        **options: Other arguments of :func:`compute_landscape`; ``name`` is by default the
            network and its seed.

    Raises:
        ValueError: If the folder, its weights or an argument is not usable.
    """
    config = run.config
    if adversarial and "attack" not in options:
        eps = config.eps
        attacks = standard_attacks(
            ("pgd",), eps=eps, norm=config.norm, recipe=config.recipe, method=config.method
        )
        options["attack"] = attacks["pgd"]
    if num_images is None:
        num_images = min(_NUM_IMAGES, len(run.data.test))
    return compute_landscape(
        run.network,
        *first_images(run, "test", num_images),
        **{"name": name_run(config.to_dict()), **options},
    )


def _check_arguments(span: float, points: int, dimensions: int, batch_size: int) -> None:
    if not 0 < span < float("inf"):
        raise ValueError(f"span must be positive and finite, got {span}")
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points must be odd and at least 3, got {points}")
    if dimensions not in (1, 2):
        raise ValueError(f"dimensions must be 1 or 2, got {dimensions}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")


def _empty(
    name: str, span: float, points: int, dimensions: int, settings: dict[str, Any]
) -> Landscape:
    half = points // 2
    # Exactly 0 in the middle, and symmetrical to the last bit.
    axis: NDArray[np.float64] = np.arange(-half, half + 1, dtype=np.float64) * (span / half)
    betas: NDArray[np.float64] = axis if dimensions == 2 else np.zeros(1)
    losses = np.full((points, len(betas)), np.nan)
    return Landscape(name, axis, betas, losses, json.loads(json.dumps(settings)))


def _start(landscape: Landscape, progress_file: str | Path | None) -> Landscape:
    """Returns the landscape with what its file knows; there is a file from here on."""
    if progress_file is None:
        return landscape
    if Path(progress_file).exists():
        found = load_landscape(progress_file)
        check_same_landscape(found, landscape, f"landscape file {str(progress_file)!r}")
        landscape.losses[:] = found.losses
    else:
        save_landscape(progress_file, landscape)
    return landscape


def _fill(
    landscape: Landscape,
    places: Sequence[Place],
    losses_at: LossesAt,
    progress_file: str | Path | None,
    on_progress: OnProgress | None,
) -> None:
    """Computes the losses at these indices into the landscape's array."""
    found = losses_at([_point_at(landscape, place) for place in places])
    for done, (place, value) in enumerate(zip(places, found, strict=True), start=1):
        landscape.losses[place] = value
        is_row_done = done == len(places) or places[done][0] != place[0]
        if progress_file is not None and is_row_done:
            save_landscape(progress_file, landscape)
        if on_progress is not None:
            on_progress(done, len(places))


def _point_at(landscape: Landscape, place: Place) -> Point:
    alpha, beta = landscape.alphas[place[0]], landscape.betas[place[1]]
    return (float(alpha),) if landscape.is_line else (float(alpha), float(beta))
