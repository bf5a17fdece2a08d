"""The one loop behind FGSM, PGD and the margin attack: climb, step back into the budget, repeat."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor, nn

from nasbench_at.runtime.cuda_graphs import MIN_CALLS, Replayed
from nasbench_at.runtime.devices import without_autotuning

from .folding import folded_norms, is_replayable
from .fusion import fused
from .guard import Mode, attack_mode
from .inputs import check_choice, check_count, check_inputs, check_number
from .norms import Norm, gaussian_like
from .objectives import Objective, cross_entropy_objective, describe, restrict
from .protocol import JsonValue, Network

Start: TypeAlias = Literal["uniform", "normal", "none"]
Counts: TypeAlias = Literal["last", "any"]

NORMAL_START_SCALE = 0.001
_FROM_EPS: Any = None  # a step size that the radius decides


def input_gradient(model: Network, x: Tensor, y: Tensor, objective: Objective) -> Tensor:
    """Returns the gradient of each sample's objective with respect to its own pixels, like `x`."""
    return _gradient_and_fooled(model, x, y, objective)[0]


@dataclass(frozen=True)
class GradientAttack:
    """Projected gradient ascent within a norm ball; `FGSM`, `LinfPGD`, ... give it norm and name.

    A call repeats `steps` times: step of length `step_size` in the direction of steepest ascent,
    plus `noise` times N(0, 1), project onto the ball around the clean image, clip to [0, 1].

    Where the `last` iterate counts, as in the papers' tables, no sample leaves the loop: one that
    was fooled half-way may end up right again. On a GPU the steps of a network with
    `is_replayable`, as a DS-Net is, are then replayed from a CUDA graph, in `eval` mode. Where
    `any` counts, a sample that fools the model at the start or after any step keeps that image and
    leaves. So does, in `eval` mode and without noise, one that a step takes back to where it was
    one or two steps ago: steps of one length between the ends of a budget end in such a cycle, and
    all it would ever visit has been looked at. It is the stronger attack and the faster one: the
    verdicts are those of looking at every iterate of all samples (but for rounding, which may
    depend on the size of a batch, and for a model whose output is random). With `tau`, a sample
    leaves, too, but takes so many more steps after it fooled the model first, and keeps what it
    has then. What has left is not computed any more, for which the host waits for the device once
    a step.

    With several `restarts`, later ones attack only the samples that are not fooled yet. A sample
    keeps the first perturbation that fools it, else the one with the highest objective. Random
    numbers are drawn for the whole batch and then selected, so no sample's fate depends on which
    others were dropped.

    On a CPU, in `eval` mode, a large network with `is_replayable` is fused for the length of a
    call, see :func:`fused <nasbench_at.attacks.fusion.fused>`.

    Attributes:
        norm: The threat model.
        name: Name in records.
        eps: Radius of the ball; in pixel scale [0, 1] for L-infinity.
        step_size: Length of a step under the same norm; a quarter of `eps` by default.
        steps: Number of gradient steps, at least 1.
        start: `uniform` in the ball, clipped to valid pixels; `normal` is 0.001 N(0, 1) around the
            image, clipped only with `tau` (TRADES does not); `none` is the image itself.
        noise: The authors' omega, at least 0.
        restarts: Number of runs, at least 1.
        counts: `last` or `any`, which iterates count.
        tau: Further steps of a fooled sample; None if all take all steps.
        objective: What is maximised; may be replaced in a call.
        mode: The model's mode during the attack, see `attack_mode`. In `train` mode the samples of
            a batch influence each other through its statistics.

    Raises:
        ValueError: If a value is out of these ranges, `any` and `tau` are both asked for, or one of
            them in `train` mode, where a sample that leaves would change the others.

    Reference:
        Madry et al. 2018, Eq. (4); `tau`: Zhang et al. 2020 (FAT), Algorithm 1. The noise is of the
        authors' code (d12306/dsnet).
    """

    norm: ClassVar[Norm]
    name: ClassVar[str]
    eps: float
    _: KW_ONLY
    step_size: float = _FROM_EPS
    steps: int = 10
    start: Start = "uniform"
    noise: float = 0.0
    restarts: int = 1
    counts: Counts = "last"
    tau: int | None = None
    objective: Objective = cross_entropy_objective
    mode: Mode = "eval"

    def __post_init__(self) -> None:
        """Refuses what would make an attack that silently does nothing."""
        check_number("eps", self.eps)
        if self.step_size is None:
            object.__setattr__(self, "step_size", self.eps / 4)
        check_number("step_size", self.step_size)
        check_number("noise", self.noise)
        self.norm.check_eps(self.eps)
        if not (self.step_size > 0 or self.eps == 0) or not math.isfinite(self.step_size):
            raise ValueError(f"step_size must be positive and finite, got {self.step_size!r}")
        check_count("steps", self.steps)
        check_count("restarts", self.restarts)
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise must be finite and at least 0, got {self.noise!r}")
        check_choice("start", self.start, get_args(Start))
        check_choice("counts", self.counts, get_args(Counts))
        check_choice("mode", self.mode, get_args(Mode))
        if self.counts == "any" and self.mode == "train":
            raise ValueError("counts 'any' must not go with mode 'train', got both")
        if self.tau is not None:
            check_count("tau", self.tau, least=0)
            for name, value in (("counts", "any"), ("mode", "train")):
                if getattr(self, name) == value:
                    raise ValueError(f"tau must not go with {name} {value!r}, got {self.tau!r}")

    def settings(self) -> dict[str, JsonValue]:
        """Returns all that decides the result besides model, data and generator."""
        return {
            "name": self.name,
            "norm": self.norm.name,
            "eps": self.eps,
            "step_size": self.step_size,
            "steps": self.steps,
            "start": self.start,
            "noise": self.noise,
            "restarts": self.restarts,
            "counts": self.counts,
            **({} if self.tau is None else {"tau": self.tau}),
            "mode": self.mode,
            **describe(self.objective),
        }

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: Generator | None = None,
        objective: Objective | None = None,
    ) -> Tensor:
        """Returns adversarial images.

        The model and the global random state are as before afterwards. Within a run of the loop
        the host never waits for the device, unless samples leave it.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1]; verified on the CPU only, see `check_inputs`.
            y: True classes.
            generator: Source of all randomness, on the device of `x`; by default a new one with
                seed 0, so that a repeated call gives the same images.
            objective: Used instead of the attack's own, such as a `KLObjective` of this batch.

        Shapes:
            x: (N, ...). y: (N,), int64.

        Returns:
            Detached images in [0, 1] within `eps` of `x`; shape, dtype and layout of `x`.

        Raises:
            ValueError: If `check_inputs` refuses `x` or `y`.
        """
        check_inputs(x, y, check_values=x.is_cpu)
        generator = generator or torch.Generator(x.device).manual_seed(0)
        objective = objective or self.objective
        shrinks = self._can_leave or self.restarts > 1
        tuning = without_autotuning() if shrinks else nullcontext()
        with attack_mode(model, self.mode), folded_norms(model, x), tuning:
            network = fused(model, x)
            climb = partial(self._climb, network, x.detach(), y, objective, generator)
            x_adv = climb()
            if self.restarts > 1:
                value, fooled = _judge(network, x_adv, y, objective)
            for _ in range(self.restarts - 1):
                rows = (~fooled).nonzero().squeeze(1)
                if len(rows) == 0:
                    break
                candidate = climb(rows)
                new_value, new_fooled = _judge(
                    network, candidate, y[rows], restrict(objective, rows)
                )
                better = new_fooled | (new_value > value[rows])
                x_adv[rows[better]] = candidate[better]
                value[rows[better]] = new_value[better]
                fooled[rows] = new_fooled
        return x_adv

    @property
    def _can_leave(self) -> bool:
        """Whether a sample may leave the loop before the last step."""
        return self.counts == "any" or self.tau is not None

    @property
    def _can_cycle(self) -> bool:
        """Whether a sample that comes back to where it was can be known to stay on its way."""
        return self.counts == "any" and self.mode == "eval" and self.noise == 0

    def _climb(
        self,
        network: Network,
        x: Tensor,
        y: Tensor,
        objective: Objective,
        generator: Generator,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Runs the loop once, on the samples `rows` of the batch or on all; returns theirs."""
        x_adv = _start_points(self.start, self.norm, x, self.eps, generator)
        if self.tau is not None:
            x_adv = x_adv.clamp(0, 1)  # a sample may stay where it starts
        active = rows
        if self._can_leave and rows is None:
            active = torch.arange(len(x), device=x.device)
        steps_left = torch.full_like(y, self.tau or 0)
        cycles = _Cycles(x_adv) if self._can_cycle else None
        replayed = self._replayed(network, y, objective) if active is None else None
        for step in range(self.steps):
            if active is not None and len(active) == 0:
                break
            noise = self.noise * gaussian_like(x, generator) if self.noise else None
            if replayed is not None:
                gradient, fooled = replayed(x_adv)
            else:
                gradient, fooled = _gradient_and_fooled(
                    network, _take(x_adv, active), _take(y, active), restrict(objective, active)
                )
            if active is not None and self._can_leave:
                goes_on = self._goes_on(step, fooled, steps_left, active)
                active, gradient = active[goes_on], gradient[goes_on]
            current = _take(x_adv, active)
            moved = current + self.step_size * self.norm.ascend(gradient)
            if noise is not None:
                moved = moved + _take(noise, active)
            moved = self.norm.project(moved, _take(x, active), self.eps)
            if active is None:
                x_adv = moved
            else:
                x_adv[active] = moved
                if cycles is not None:
                    active = active[~cycles.find(active, current, moved)]
        return _take(x_adv, rows)

    def _replayed(self, network: Network, y: Tensor, objective: Objective) -> Replayed | None:
        """Returns the gradient of a whole batch, as a GPU can replay it; None if it cannot.

        In training mode blocks draw random numbers, and a replay need not draw those of a step that
        is computed.
        """
        if not y.is_cuda or self.mode != "eval" or self.steps < MIN_CALLS:
            return None
        if not isinstance(network, nn.Module) or not is_replayable(network):
            return None
        return Replayed(lambda images: _gradient_and_fooled(network, images, y, objective))

    def _goes_on(self, step: int, fooled: Tensor, steps_left: Tensor, active: Tensor) -> Tensor:
        """Returns which samples take another step; counts the steps of fooled ones."""
        if step == 0 and self.start == "normal" and self.tau is None:
            fooled.fill_(False)  # the start is not clipped, so it may be no valid image
        goes_on = ~fooled | (steps_left[active] > 0)
        steps_left[active] -= fooled.long()
        return goes_on


class _Cycles:
    """Where the samples were a step ago, which tells those that only repeat themselves."""

    def __init__(self, x_adv: Tensor) -> None:
        self._before = x_adv.clone()

    def find(self, rows: Tensor, current: Tensor, moved: Tensor) -> Tensor:
        """Returns which of the samples `rows` stand still or are back, and remembers `current`."""
        stands = _is_same(moved, current)
        is_back = _is_same(moved, self._before[rows])
        self._before[rows] = current
        return stands | is_back


def _start_points(start: Start, norm: Norm, x: Tensor, eps: float, generator: Generator) -> Tensor:
    """Returns where an attack on the images `x` starts, in memory of its own."""
    match start:
        case "uniform":
            return norm.uniform(x, eps, generator)
        case "normal":
            return x + NORMAL_START_SCALE * gaussian_like(x, generator)
        case "none":
            return x.clone()


def _gradient_and_fooled(
    model: Network, x: Tensor, y: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Returns the gradient, and which samples are misclassified, (N,), from the same forward."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        total = objective(logits, y).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return gradient, logits.detach().argmax(dim=1) != y


@torch.no_grad()
def _judge(model: Network, x_adv: Tensor, y: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Returns each sample's objective and whether its class is wrong, both (N,)."""
    logits = model(x_adv)
    return objective(logits, y), logits.argmax(dim=1) != y


def _is_same(images: Tensor, others: Tensor) -> Tensor:
    """Returns which images are equal in every pixel, (N,)."""
    return (images == others).flatten(1).all(dim=1)


def _take(batch: Tensor, rows: Tensor | None) -> Tensor:
    return batch if rows is None else batch[rows]
