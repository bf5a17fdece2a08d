"""The one loop behind FGSM, PGD and the margin attack: climb, step back into the budget, repeat."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor, nn

from .guard import Mode, attack_mode
from .inputs import check_inputs
from .norms import Norm, gaussian_like
from .objectives import Objective, cross_entropy_objective, describe, restrict
from .protocol import JsonValue

Start: TypeAlias = Literal["uniform", "normal", "none"]

NORMAL_START_SCALE = 0.001


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """Return the gradient of each sample's objective with respect to its own pixels, like `x`."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        total = objective(model(leaf), y).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient


@dataclass(frozen=True)
class GradientAttack:
    """Projected gradient ascent within a norm ball; `FGSM`, `LinfPGD`, ... are its named forms.

    A call repeats `steps` times: step of length `step_size` in the direction of steepest ascent,
    plus `noise` times N(0, 1), project onto the ball around the clean image, clip to [0, 1]. The
    last iterate counts.

    With several `restarts`, later ones attack only the samples that are not fooled yet. A sample
    keeps the first perturbation that fools it, else the one with the highest objective. Random
    numbers are drawn for the whole batch and then selected, so no sample's fate depends on which
    others were dropped.

    Attributes:
        eps: radius of the ball; in pixel scale [0, 1] for L-infinity.
        norm: the threat model.
        name: name in records.
        step_size: length of a step under the same norm.
        steps: number of gradient steps, at least 1.
        start: `uniform` in the ball, clipped to valid pixels; `normal` is 0.001 N(0, 1) around
            the image, not clipped (as TRADES has it); `none` is the image itself.
        noise: the authors' omega, at least 0.
        restarts: number of runs, at least 1.
        objective: what is maximised; may be replaced in a call.
        mode: the model's mode during the attack, see `attack_mode`. In `train` mode the samples of
            a batch influence each other through its statistics.

    Raises:
        ValueError: if a value is out of these ranges.

    Reference:
        Madry et al. 2018, Eq. (4). The noise is of the authors' code (d12306/dsnet).
    """

    eps: float
    _: KW_ONLY
    norm: Norm = field(repr=False)
    name: str
    step_size: float
    steps: int
    start: Start = "uniform"
    noise: float = 0.0
    restarts: int = 1
    objective: Objective = cross_entropy_objective
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        """Refuse what would make an attack that silently does nothing."""
        self.norm.check_eps(self.eps)
        if not (self.step_size > 0 or self.eps == 0) or not math.isfinite(self.step_size):
            raise ValueError(f"step_size must be positive and finite, got {self.step_size!r}")
        for name, count in (("steps", self.steps), ("restarts", self.restarts)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0, got {self.noise!r}")
        for name, value, kinds in (("start", self.start, Start), ("mode", self.mode, Mode)):
            if value not in get_args(kinds):
                allowed = ", ".join(get_args(kinds))
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")

    def settings(self) -> dict[str, JsonValue]:
        """Return all that decides the result besides model, data and generator."""
        return {
            "name": self.name,
            "norm": self.norm.name,
            "eps": self.eps,
            "step_size": self.step_size,
            "steps": self.steps,
            "start": self.start,
            "noise": self.noise,
            "restarts": self.restarts,
            "mode": self.mode,
            **describe(self.objective),
        }

    def replace(self, **changes: Any) -> GradientAttack:
        """Return this attack with other attributes, such as `replace(steps=200)`."""
        attributes = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return GradientAttack(**attributes | changes)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: Generator | None = None,
        objective: Objective | None = None,
    ) -> Tensor:
        """Return adversarial images.

        The model and the global random state are as before afterwards. Within a run of the loop
        the host never waits for the device.

        Args:
            model: maps images to logits.
            x: images in [0, 1]; verified on the CPU only, see `check_inputs`.
            y: true classes.
            generator: source of all randomness, on the device of `x`; by default a new one with
                seed 0, so that a repeated call gives the same images.
            objective: used instead of the attack's own, such as a `KLObjective` of this batch.

        Shapes:
            x: (N, ...). y: (N,), int64.

        Returns:
            Detached images in [0, 1] within `eps` of `x`; shape, dtype and layout of `x`.

        Raises:
            ValueError: if `check_inputs` refuses `x` or `y`.
        """
        check_inputs(x, y, check_values=x.is_cpu)
        generator = generator or torch.Generator(x.device).manual_seed(0)
        objective = objective or self.objective
        with attack_mode(model, self.mode):
            x_adv = self._ascend(model, x, y, objective=objective, generator=generator)
            if self.restarts > 1:
                self._restart(model, x, y, x_adv, objective=objective, generator=generator)
        return x_adv

    def _ascend(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        objective: Objective,
        generator: Generator,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Run the loop once, on the samples `rows` of the batch or on all of them."""

        def select(batch: Tensor) -> Tensor:
            return batch if rows is None else batch[rows]

        objective = objective if rows is None else restrict(objective, rows)
        centre, target = select(x.detach()), select(y)
        x_adv = select(self._start(x.detach(), generator))
        for _ in range(self.steps):
            gradient = input_gradient(model, x_adv, target, objective)
            x_adv = x_adv + self.step_size * self.norm.ascend(gradient)
            if self.noise:
                x_adv = x_adv + self.noise * select(gaussian_like(x, generator))
            x_adv = self.norm.project(x_adv, centre, self.eps)
        return x_adv

    def _start(self, x: Tensor, generator: Generator) -> Tensor:
        match self.start:
            case "uniform":
                return self.norm.uniform(x, self.eps, generator)
            case "normal":
                return x + NORMAL_START_SCALE * gaussian_like(x, generator)
            case "none":
                return x

    def _restart(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        x_adv: Tensor,
        *,
        objective: Objective,
        generator: Generator,
    ) -> None:
        """Run the remaining restarts and improve `x_adv` in place."""
        value, fooled = _judge(model, x_adv, y, objective)
        for _ in range(self.restarts - 1):
            rows = (~fooled).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            candidate = self._ascend(
                model, x, y, objective=objective, generator=generator, rows=rows
            )
            new_value, new_fooled = _judge(model, candidate, y[rows], restrict(objective, rows))
            better = new_fooled | (new_value > value[rows])
            x_adv[rows[better]] = candidate[better]
            value[rows[better]] = new_value[better]
            fooled[rows] = new_fooled


@torch.no_grad()
def _judge(
    model: nn.Module, x_adv: Tensor, y: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Return each sample's objective and whether its class is wrong, both (N,)."""
    logits = model(x_adv)
    return objective(logits, y), logits.argmax(dim=1) != y
