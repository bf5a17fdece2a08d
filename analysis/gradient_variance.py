"""Variance of the stochastic gradient, Sec. 4.7 and Fig. 7 (b) of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from analysis.errors import IncomparableRunsError, UnsuitableRunsError
from analysis.loss_gradients import Loss, choose_method, flatten, gradients_of, select_parameters
from analysis.run_images import first_images
from analysis.style import PALETTE, create_figure, style_axes
from nasbench_at.attacks import check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.methods import Method, StandardTraining

__all__ = [
    "GradientVariance",
    "compute_gradient_variance",
    "compute_run_gradient_variance",
    "draw_gradient_variance",
]


@dataclass(frozen=True)
class GradientVariance:
    """E‖g − E g‖² over batches, g the gradient of a batch's mean loss.

    Attributes:
        layer: Which parameters, see :func:`analysis.loss_gradients.select_parameters`.
        variance: E‖g − E g‖², E the mean over the batches.
        mean_norm: ‖E g‖.
        num_batches: Batches the mean is over.
        batch_size: Images in each.
    """

    layer: str
    variance: float
    mean_norm: float
    num_batches: int
    batch_size: int


def compute_gradient_variance(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    method: Method | None = None,
    layer: str = "last",
    batch_size: int = 128,
    num_batches: int | None = None,
    seed: int = 0,
) -> GradientVariance:
    """Measures how much the gradient differs from batch to batch.

    As in the paper a batch's gradient stands for one sample and the mean over batches for the
    expectation. All batches have one size, so that this mean is the gradient of all their images;
    the images that a pass leaves over are not used. The network is in eval mode, and the backward
    pass ends at the layer.

    Args:
        model: Images to logits.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        method: How a batch becomes a loss, its attack among it; by default the cross entropy of
            the clean images.
        layer: ``last``, ``all``, or the beginning of parameters' names.
        batch_size: Images in a batch.
        num_batches: How many batches, at least 2, drawn in as many passes as needed; one pass by
            default.
        seed: Of the order and of the attack.

    Returns:
        The variance over the batches (their number divides, not one less).

    Raises:
        ValueError: If an argument is not usable or there are fewer images than in two batches.

    Reference:
        Du et al., ICML 2021, Sec. 4.7, which takes the last fully connected layer.
    """
    check_inputs(images, labels)
    num_batches = _check_batches(len(labels), batch_size, num_batches)
    method = method or StandardTraining()
    names = select_parameters(model, layer)
    mean = torch.zeros((), dtype=torch.float64, device=images.device)
    spread = torch.zeros_like(mean)
    with gradients_of(model, names) as parameters:
        for i, indices in enumerate(_draw_batches(len(labels), batch_size, num_batches, seed)):
            chosen = indices.to(images.device)
            x, y = images[chosen], labels[chosen]
            noise = make_generator(seed, "gradient variance", i, device=x.device)
            x_adv = method.perturb(model, x, y, noise)
            loss = method.loss(model, x, x_adv, y).loss
            gradient = flatten(torch.autograd.grad(loss, parameters, materialize_grads=True))
            # Welford: sums of squares would cancel where the mean is far longer than the spread.
            delta = gradient - mean
            mean = mean + delta / (i + 1)
            spread = spread + delta @ (gradient - mean)
    return GradientVariance(
        layer=layer,
        variance=float(spread) / num_batches,
        mean_norm=float(mean.norm()),
        num_batches=num_batches,
        batch_size=batch_size,
    )


def _check_batches(num_images: int, batch_size: int, num_batches: int | None) -> int:
    if not 1 <= batch_size <= num_images:
        raise ValueError(
            f"batch_size must lie in 1..{num_images}, the number of images, got {batch_size}"
        )
    per_pass = num_images // batch_size
    if per_pass < 2:  # batches of more passes would be the same images again
        raise UnsuitableRunsError(
            f"a gradient variance needs images for at least 2 batches, got {num_images} for "
            f"batches of {batch_size}"
        )
    count = per_pass if num_batches is None else num_batches
    if count < 2:
        raise ValueError(f"num_batches must be at least 2, got {count}")
    return count


def _draw_batches(
    num_images: int, batch_size: int, num_batches: int, seed: int
) -> Iterator[Tensor]:
    """Yields indices of whole batches, pass after pass, each in an order of its own."""
    per_pass = num_images // batch_size
    for number in range(num_batches):
        if number % per_pass == 0:
            generator = make_generator(seed, "gradient variance", "order", number // per_pass)
            order = torch.randperm(num_images, generator=generator)
        yield order.narrow(0, number % per_pass * batch_size, batch_size)


def compute_run_gradient_variance(
    run: Run,
    *,
    loss: Loss = "training",
    layer: str = "last",
    num_batches: int = 50,
    batch_size: int | None = None,
    seed: int = 0,
) -> GradientVariance:
    """Measures the gradient variance of a run at its selected weights on its training images.

    Args:
        run: The run.
        loss: ``natural``, ``adversarial`` or ``training``, see
            :func:`analysis.loss_gradients.choose_method`. Fig. 7 shows the last.
        layer: As in :func:`compute_gradient_variance`.
        num_batches: As there.
        batch_size: As there; the run's by default.
        seed: As there.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    return compute_gradient_variance(
        run.network,
        *first_images(run, "train"),
        method=choose_method(run.config, loss),
        layer=layer,
        batch_size=run.config.batch_size if batch_size is None else batch_size,
        num_batches=num_batches,
        seed=seed,
    )


def draw_gradient_variance(runs: Mapping[str, GradientVariance], *, loss: Loss) -> Figure:
    """Draws a bar a run.

    Args:
        runs: The variances by what the runs are called.
        loss: Which loss they are of.

    Raises:
        ValueError: If there is no run, or they are of different layers or batches.
    """
    settings = {(found.layer, found.num_batches, found.batch_size) for found in runs.values()}
    if len(settings) != 1:
        raise IncomparableRunsError(
            f"runs must share layer, batches and batch size, got {len(settings)} different settings"
        )
    ((layer, num_batches, batch_size),) = settings
    figure = create_figure()
    axes = figure.add_subplot()
    style_axes(
        axes,
        x="",
        y="gradient variance $E\\|g - E g\\|^2$",
        title=f"{loss} loss, {layer} layer, {num_batches} batches of {batch_size} images",
    )
    places = range(len(runs))
    colors = [PALETTE[i % len(PALETTE)] for i in places]
    axes.bar(places, [found.variance for found in runs.values()], width=0.6, color=colors)
    axes.set_xlim(-0.75, len(runs) - 0.25)
    axes.set_xticks(places, list(runs), fontsize=7, rotation=15, ha="right")
    axes.set_ylim(bottom=0)
    return figure
