"""PGD that stops early, image by image: the friendly adversarial data of FAT."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from nasbench_at.runtime.devices import without_autotuning

from .folding import folded_norms
from .gradient import Start, gradient_and_verdict, start_points
from .guard import attack_mode
from .inputs import check_inputs
from .norms import LINF, gaussian_like
from .objectives import Objective, cross_entropy_objective, restrict
from .protocol import JsonValue


@dataclass(frozen=True)
class EarlyStopPGD:
    """L-infinity PGD in which an image leaves the loop soon after it fools the model.

    Before each step, an image that is misclassified and has used up its `tau` further steps stays
    as it is; a misclassified one with steps left uses one up; all others go on.

    Images that have left are no longer computed, so the sizes of the batches depend on the data
    and the host waits for the device once a step.

    Attributes:
        eps: radius, in [0, 1].
        step_size: length of a step.
        steps: largest number of steps.
        tau: further steps after the first misclassification.
        start: as in `GradientAttack`; `normal` is clipped to valid pixels here.
        noise: standard deviation of the noise added at each step.

    Raises:
        ValueError: if a value is out of range.

    Reference:
        Zhang et al. 2020 (FAT), Algorithm 1.
    """

    eps: float
    _: KW_ONLY
    step_size: float
    steps: int = 10
    tau: int = 0
    start: Start = "uniform"
    noise: float = 0.0
    name: Literal["early_stop_pgd"] = "early_stop_pgd"

    def __post_init__(self) -> None:
        """Refuse what makes no attack."""
        LINF.check_eps(self.eps)
        if self.steps < 1 or self.tau < 0:
            raise ValueError(
                f"steps must be at least 1 and tau at least 0, got {self.steps!r} and {self.tau!r}"
            )

    def settings(self) -> dict[str, JsonValue]:
        """Return all that decides the result besides model, data and generator."""
        return {
            "name": self.name,
            "norm": LINF.name,
            "eps": self.eps,
            "step_size": self.step_size,
            "steps": self.steps,
            "tau": self.tau,
            "start": self.start,
            "noise": self.noise,
        }

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: Generator | None = None,
        objective: Objective = cross_entropy_objective,
    ) -> Tensor:
        """Return adversarial images, in the order of `x`.

        Args:
            model: maps images to logits.
            x: images in [0, 1].
            y: true classes.
            generator: source of all randomness; by default a new one with seed 0.
            objective: what is maximised.

        Shapes:
            x: (N, ...). y: (N,), int64.
        """
        check_inputs(x, y, check_values=x.is_cpu)
        generator = generator or torch.Generator(x.device).manual_seed(0)
        clean = x.detach()
        result = start_points(self.start, LINF, clean, self.eps, generator).clamp(0, 1)
        rows = torch.arange(len(x), device=x.device)
        steps_left = torch.full_like(y, self.tau)
        with attack_mode(model), folded_norms(model, x), without_autotuning():
            for _ in range(self.steps):
                noise = self.noise * gaussian_like(x, generator) if self.noise else None
                gradient, fooled = gradient_and_verdict(
                    model, result[rows], y[rows], restrict(objective, rows)
                )
                goes_on = ~fooled | (steps_left[rows] > 0)
                steps_left[rows] -= fooled.long()
                rows, gradient = rows[goes_on], gradient[goes_on]
                if len(rows) == 0:
                    break
                stepped = result[rows] + self.step_size * gradient.sign()
                if noise is not None:
                    stepped = stepped + noise[rows]
                result[rows] = LINF.project(stepped, clean[rows], self.eps)
        return result
