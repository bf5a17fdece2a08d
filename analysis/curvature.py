"""Gradient and curvature of a loss in the weights: what Theorems 3.4 and 3.5 call smoothness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analysis.loss_gradients import Loss, choose_method, flatten, gradients_of, select_parameters
from analysis.operator_norms import compute_top_eigenvalue
from analysis.run_images import first_images
from nasbench_at.attacks import check_inputs
from nasbench_at.evaluation.runs import Run
from nasbench_at.runtime.seeding import make_generator
from nasbench_at.training.methods import Method, StandardTraining

__all__ = ["Curvature", "compute_curvature", "compute_run_curvature"]


@dataclass(frozen=True)
class Curvature:
    """A loss at the network's weights, to second order.

    Attributes:
        loss: Its value.
        gradient_norm: Euclidean norm of its gradient.
        top_eigenvalue: Largest eigenvalue of its Hessian.
        eigenvalue_error: An eigenvalue lies within this distance of it.
    """

    loss: float
    gradient_norm: float
    top_eigenvalue: float
    eigenvalue_error: float


def compute_curvature(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    method: Method | None = None,
    layer: str = "all",
    batch_size: int = 128,
    tolerance: float = 1e-3,
    max_steps: int = 50,
    seed: int = 0,
) -> Curvature:
    """Computes loss, gradient norm and the Hessian's largest eigenvalue on given images.

    The Hessian is never formed: each step multiplies it with a vector by differentiating twice.
    Adversarial images are found once and then held fixed, as training does (Danskin). With ReLU
    the Hessian is that of the smooth piece the weights lie in. The network is in eval mode.

    Args:
        model: Images to logits.
        images: In [0, 1], shape ``(N, C, H, W)``.
        labels: True classes, shape ``(N,)``.
        method: How images become a loss, their attack among it; by default the cross entropy of
            the clean images.
        layer: ``all`` that is trained, ``last``, or the beginning of parameters' names.
        batch_size: Images at a time; the result does not depend on it but for the attack's draws.
        tolerance: Relative error of the eigenvalue to stop at.
        max_steps: Hessian-vector products at most.
        seed: Of the start and of the attack.

    Raises:
        ValueError: If an argument is not usable.
    """
    check_inputs(images, labels)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    method = method or StandardTraining()
    names = select_parameters(model, layer)
    with gradients_of(model, names) as parameters:
        loss = _MeanLoss(model, parameters, method)
        loss.take(images, labels, batch_size, seed)
        value, gradient = loss.value_and_gradient()
        start = torch.randn(len(gradient), generator=make_generator(seed, "curvature"))
        top = compute_top_eigenvalue(
            loss.multiply_hessian,
            start.to(gradient),
            tolerance=tolerance,
            max_steps=max_steps,
        )
    return Curvature(
        loss=value,
        gradient_norm=float(gradient.norm()),
        top_eigenvalue=top.value,
        eigenvalue_error=top.error,
    )


class _MeanLoss:
    """The mean loss of images, attacked once, and its derivatives in some parameters."""

    def __init__(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], method: Method
    ) -> None:
        self.model, self.parameters, self.method = model, parameters, method
        self.batches: list[tuple[Tensor, Tensor, Tensor, float]] = []

    def take(self, images: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        """Attacks the images and keeps them, each batch with its share of them."""
        for first in range(0, len(labels), batch_size):
            x, y = images[first : first + batch_size], labels[first : first + batch_size]
            noise = make_generator(seed, "curvature", first, device=x.device)
            x_adv = self.method.perturb(self.model, x, y, noise)
            self.batches.append((x, x_adv, y, len(y) / len(labels)))

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """Returns the loss and its gradient, flat."""
        parts = []
        for x, x_adv, y, share in self.batches:
            loss = share * self.method.loss(self.model, x, x_adv, y).loss
            gradient = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            parts.append((loss.detach().double(), flatten(gradient)))
        values, gradients = zip(*parts, strict=True)
        return float(torch.stack(values).sum()), torch.stack(gradients).sum(dim=0)

    def multiply_hessian(self, vector: Tensor) -> Tensor:
        """Returns the Hessian times a flat vector."""
        sizes = [parameter.numel() for parameter in self.parameters]
        pieces = torch.split_with_sizes(vector, sizes)
        directions = [
            piece.view(p.shape).to(p.dtype)
            for piece, p in zip(pieces, self.parameters, strict=True)
        ]
        total = torch.zeros_like(vector)
        for x, x_adv, y, share in self.batches:
            loss = share * self.method.loss(self.model, x, x_adv, y).loss
            gradient = torch.autograd.grad(
                loss, self.parameters, create_graph=True, materialize_grads=True
            )
            slope = sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
            assert isinstance(slope, Tensor)
            total += flatten(torch.autograd.grad(slope, self.parameters, materialize_grads=True))
        return total


def compute_run_curvature(
    run: Run,
    *,
    loss: Loss = "training",
    layer: str = "all",
    num_images: int = 512,
    seed: int = 0,
) -> Curvature:
    """Computes the curvature of a run's loss on its first training images.

    Args:
        run: The run.
        loss: ``natural``, ``adversarial`` or ``training``, see
            :func:`analysis.loss_gradients.choose_method`.
        layer: As in :func:`compute_curvature`.
        num_images: How many images.
        seed: As there.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    images, labels = first_images(run, "train", num_images)
    method = choose_method(run.config, loss)
    return compute_curvature(run.network, images, labels, method=method, layer=layer, seed=seed)
