"""Theorem 3.4, the convergence bound of stochastic gradient descent, for a trained network.

The theorem is about plain SGD that returns a random iterate, on a function that is L-smooth
everywhere with gradients whose variance is at most σ² everywhere. What can be measured is L and σ²
at some weights, and the gradient at the end; training has momentum and weight decay besides. The
result says which of the assumptions the numbers meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.claims.claim import Claim, verdict_of
from analysis.curvature import compute_curvature
from analysis.gradient_variance import compute_gradient_variance
from analysis.loss_gradients import Loss, choose_method
from analysis.run_images import first_images
from nasbench_at.evaluation.runs import Run
from nasbench_at.training.launch import create_network
from nasbench_at.training.schedules import learning_rate

__all__ = ["ConvergenceBound", "compute_run_convergence_bound"]


@dataclass(frozen=True)
class ConvergenceBound:
    """E‖∇f_{W_R}‖² ≤ 2(f_{W_0} − f*)/H + (Lσ²/H) Σ γ_k², Eq. (11) of the paper; H = Σ γ_k.

    Attributes:
        step_sizes: γ_k of each step, positive, shape ``(N,)``.
        initial_loss: f_{W_0}.
        smoothness: L, finite and at least 0.
        variance: σ², likewise.
        gradient_norm: ‖∇f‖ at the weights that training ended with.
        optimal_loss: f*, or a lower bound of it, as 0 is of the cross entropy.

    Raises:
        ValueError: If there is no step, or a value is outside its range.

    Reference:
        Ghadimi and Lan, SIAM Journal on Optimization 2013, Theorem 2.1.
    """

    step_sizes: NDArray[np.float64]
    initial_loss: float
    smoothness: float
    variance: float
    gradient_norm: float
    optimal_loss: float = 0.0

    def __post_init__(self) -> None:
        steps = self.step_sizes
        if steps.size == 0 or not (steps > 0).all():
            least = "none" if steps.size == 0 else f"{steps.min():.4g}"
            raise ValueError(f"step_sizes must be positive and at least one, got {least}")
        for name, value in (("smoothness", self.smoothness), ("variance", self.variance)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        if self.optimal_loss > self.initial_loss:
            raise ValueError(
                f"optimal_loss must be at most initial_loss {self.initial_loss:.4g}, got "
                f"{self.optimal_loss:.4g}"
            )

    @property
    def descent_term(self) -> float:
        """2(f_{W_0} − f*)/H, which vanishes with the number of steps."""
        return 2 * (self.initial_loss - self.optimal_loss) / float(self.step_sizes.sum())

    @property
    def noise_term(self) -> float:
        """(Lσ²/H) Σ γ_k², which does not with constant steps."""
        steps = self.step_sizes
        return self.smoothness * self.variance * float(np.square(steps).sum() / steps.sum())

    @property
    def bound(self) -> float:
        """The right side of Eq. (11)."""
        return self.descent_term + self.noise_term

    def claims(self) -> tuple[Claim, ...]:
        """Holds the theorem's assumption on the steps and its bound against the numbers."""
        limit = math.inf if self.smoothness == 0 else 1 / self.smoothness
        largest, squared_norm = float(self.step_sizes.max()), self.gradient_norm**2
        small_enough = largest < limit
        premise = "" if small_enough else ", but the theorem does not speak of such steps"
        return (
            Claim(
                source="Thm. 3.4",
                statement="the steps are below 1/L",
                verdict=verdict_of(small_enough),
                explanation=f"the largest is {largest:.3g}, 1/L {limit:.3g} where L was "
                "measured; L may be larger elsewhere",
            ),
            Claim(
                source="Thm. 3.4",
                statement="E‖∇f‖² ≤ 2(f_W0 - f*)/H + (L σ²/H) Σ step_k²",
                verdict=verdict_of(squared_norm <= self.bound),
                explanation=f"{squared_norm:.3g} against {self.descent_term:.3g} + "
                f"{self.noise_term:.3g}{premise}; the left side is that of the weights selected, "
                "not of a random iterate",
            ),
        )


def compute_run_convergence_bound(
    run: Run,
    *,
    loss: Loss = "training",
    num_images: int = 512,
    num_batches: int = 50,
    seed: int = 0,
) -> ConvergenceBound:
    """Evaluates Theorem 3.4 for a run, on its training images.

    L (the Hessian's largest eigenvalue) and σ² are the larger of two measurements, before training
    and at the selected weights, over all trained parameters. γ_k are the learning rates of the
    run's schedule.

    Args:
        run: The run.
        loss: ``natural``, ``adversarial`` or ``training``, see
            :func:`analysis.loss_gradients.choose_method`.
        num_images: How many images the loss and its Hessian are of, the first ones.
        num_batches: Batches for the variance, of the run's size, drawn from all training images.
        seed: Of starts, orders and attacks.

    Raises:
        ValueError: If the folder or an argument is not usable.
    """
    images, labels = first_images(run, "train", num_images)
    all_images, all_labels = first_images(run, "train")
    method = choose_method(run.config, loss)
    values = run.config
    untrained = create_network(run.config, run.data, run.device)
    measured = []
    for model in (untrained, run.network):
        curvature = compute_curvature(model, images, labels, method=method, seed=seed)
        variance = compute_gradient_variance(
            model,
            all_images,
            all_labels,
            method=method,
            layer="all",
            batch_size=values.batch_size,
            num_batches=num_batches,
            seed=seed,
        )
        measured.append((curvature, variance.variance))
    (before, _), (after, _) = measured
    num_steps = run.data.train.num_batches(values.batch_size)
    step_sizes = [
        learning_rate(values, epoch, step, num_steps)
        for epoch in range(1, values.epochs + 1)
        for step in range(num_steps)
    ]
    return ConvergenceBound(
        np.array(step_sizes),
        initial_loss=before.loss,
        smoothness=max(0.0, *(curvature.top_eigenvalue for curvature, _ in measured)),
        variance=max(variance for _, variance in measured),
        gradient_norm=after.gradient_norm,
    )
