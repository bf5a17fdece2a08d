"""The one loop behind FGSM, PGD and the margin attack: climb, step back into the budget, repeat."""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor, nn

from nasbench_at.runtime.devices import without_autotuning

from .folding import folded_norms
from .guard import Mode, attack_mode
from .inputs import check_inputs, check_number
from .norms import Norm, gaussian_like
from .objectives import Objective, cross_entropy_objective, describe, restrict
from .protocol import JsonValue

Start: TypeAlias = Literal["uniform", "normal", "none"]
Verdict: TypeAlias = Literal["last", "any"]

NORMAL_START_SCALE = 0.001


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """Return the gradient of each sample's objective with respect to its own pixels, like `x`."""
    return gradient_and_verdict(model, x, y, objective)[0]


def gradient_and_verdict(
    model: nn.Module, x: Tensor, y: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Return the gradient, and which samples are misclassified, (N,), from the same forward."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        total = objective(logits, y).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient, logits.detach().argmax(dim=1) != y


def start_points(start: Start, norm: Norm, x: Tensor, eps: float, generator: Generator) -> Tensor:
    """Return where an attack on the images `x` starts, shaped like `x`."""
    match start:
        case "uniform":
            return norm.uniform(x, eps, generator)
        case "normal":
            return x + NORMAL_START_SCALE * gaussian_like(x, generator)
        case "none":
            return x


@dataclass(frozen=True)
class GradientAttack:
    """Projected gradient ascent within a norm ball; `FGSM`, `LinfPGD`, ... are its named forms.

    A call repeats `steps` times: step of length `step_size` in the direction of steepest ascent,
    plus `noise` times N(0, 1), project onto the ball around the clean image, clip to [0, 1].

    With the verdict `last`, the last iterate counts, as in the papers' tables, and no sample leaves
    the loop: one that was fooled half-way may end up right again. With `any`, a sample that fools
    the model at the start or after any step keeps that image and leaves the loop. It is the
    stronger attack and the faster one: the verdicts are those of looking at every iterate of all
    samples (but for rounding, which may depend on the size of a batch), and the gradients of
    samples already fooled are not computed. The host then waits for the device once a step.

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
        verdict: `last` or `any`, which iterates count.
        objective: what is maximised; may be replaced in a call.
        mode: the model's mode during the attack, see `attack_mode`. In `train` mode the samples of
            a batch influence each other through its statistics.

    Raises:
        ValueError: if a value is out of these ranges, or `any` is asked for in `train` mode, where
            a sample that leaves would change the others.

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
    verdict: Verdict = "last"
    objective: Objective = cross_entropy_objective
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        """Refuse what would make an attack that silently does nothing."""
        for name in ("eps", "step_size", "noise"):
            check_number(name, getattr(self, name))
        for name in ("steps", "restarts"):
            check_number(name, getattr(self, name), whole=True)
        self.norm.check_eps(self.eps)
        if not (self.step_size > 0 or self.eps == 0) or not math.isfinite(self.step_size):
            raise ValueError(f"step_size must be positive and finite, got {self.step_size!r}")
        for name, count in (("steps", self.steps), ("restarts", self.restarts)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count!r}")
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0, got {self.noise!r}")
        for name, value, kinds in (
            ("start", self.start, Start),
            ("verdict", self.verdict, Verdict),
            ("mode", self.mode, Mode),
        ):
            if value not in get_args(kinds):
                allowed = ", ".join(get_args(kinds))
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        if self.verdict == "any" and self.mode == "train":
            raise ValueError("verdict 'any' must not go with mode 'train', got both")

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
            "verdict": self.verdict,
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
        the host never waits for the device, unless the verdict is `any`.

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
        shrinks = self.verdict == "any" or self.restarts > 1
        tuning = without_autotuning() if shrinks else nullcontext()
        with attack_mode(model, self.mode), folded_norms(model, x), tuning:
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
        if self.verdict == "any":
            return self._ascend_until_fooled(
                model, x, y, objective=objective, generator=generator, rows=rows
            )

        def select(batch: Tensor) -> Tensor:
            return batch if rows is None else batch[rows]

        objective = objective if rows is None else restrict(objective, rows)
        centre, target = select(x.detach()), select(y)
        x_adv = select(start_points(self.start, self.norm, x.detach(), self.eps, generator))
        for _ in range(self.steps):
            gradient = input_gradient(model, x_adv, target, objective)
            x_adv = x_adv + self.step_size * self.norm.ascend(gradient)
            if self.noise:
                x_adv = x_adv + self.noise * select(gaussian_like(x, generator))
            x_adv = self.norm.project(x_adv, centre, self.eps)
        return x_adv

    def _ascend_until_fooled(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        objective: Objective,
        generator: Generator,
        rows: Tensor | None,
    ) -> Tensor:
        """Run the loop once; a sample leaves it with the first image that fools the model."""
        clean = x.detach()
        x_adv = start_points(self.start, self.norm, clean, self.eps, generator).clone()
        active = torch.arange(len(x), device=x.device) if rows is None else rows
        for step in range(self.steps):
            noise = self.noise * gaussian_like(x, generator) if self.noise else None
            gradient, fooled = gradient_and_verdict(
                model, x_adv[active], y[active], restrict(objective, active)
            )
            if step == 0 and self.start == "normal":
                fooled.fill_(False)  # the start is not clipped, so it may be no valid image
            active, gradient = active[~fooled], gradient[~fooled]
            if len(active) == 0:
                break
            stepped = x_adv[active] + self.step_size * self.norm.ascend(gradient)
            if noise is not None:
                stepped = stepped + noise[active]
            x_adv[active] = self.norm.project(stepped, clean[active], self.eps)
        return x_adv if rows is None else x_adv[rows]

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
