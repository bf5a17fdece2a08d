"""APGD, the ascent of AutoAttack that halves its step where it stops paying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .norms import lengths
from .objectives import logits_of, runners_up
from .protocol import Network

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_TINY = 1e-12
_MOMENTUM_WEIGHT = 0.75
_FIRST_PERIOD, _LAST_PERIOD, _PERIOD_SHRINKS_BY = 0.22, 0.06, 0.03
"""Steps between checks of the step size, as shares of all steps."""
_LEAST_ASCENDING = 0.75
"""Share of a period's steps that must raise the loss."""


def cross_entropy(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of each sample; the target is not looked at."""
    return F.cross_entropy(logits, label, reduction="none")


def dlr(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    r"""Returns the difference-of-logits ratio of each sample; the target is not looked at.

    .. math:: -\frac{z_y - \max_{j \ne y} z_j}{z_{\pi_1} - z_{\pi_3}}
    """
    ordered, classes = logits.sort(dim=1)
    is_first = (classes[:, -1] == label).to(logits.dtype)
    other = ordered[:, -2] * is_first + ordered[:, -1] * (1 - is_first)
    return (other - logits_of(logits, label)) / (ordered[:, -1] - ordered[:, -3] + _TINY)


def targeted_dlr(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    r"""Returns the targeted difference-of-logits ratio of each sample.

    .. math:: -\frac{z_y - z_t}{z_{\pi_1} - (z_{\pi_3} + z_{\pi_4}) / 2}
    """
    ordered = logits.sort(dim=1).values
    scale = ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + _TINY
    return (logits_of(logits, target) - logits_of(logits, label)) / scale


@dataclass(frozen=True)
class AutoPGD:
    """Projected gradient ascent with momentum and a step size that halves itself.

    Every iterate counts. Images that are fooled leave at once, so that an image that is returned is
    the first that fools the model (the library's is the last). What happens to the others is not
    changed by that: starts are drawn as the library draws them, for the images that are left when
    a target begins.

    Attributes:
        eps: Radius of the ball.
        norm: `Linf` or `L2`.
        steps: Number of gradient steps.
        num_gradients: How many gradients are averaged in a step, for models with random output. If
            it is more than one, no image leaves, so that the model draws what it would draw.

    Reference:
        Croce and Hein 2020, Algorithm 1; the code is pyautoattack's, row by row.
    """

    eps: float
    norm: str
    steps: int = 100
    num_gradients: int = 1

    def attack(
        self, model: Network, x: Tensor, y: Tensor, loss: Loss, generator: Generator
    ) -> Tensor:
        """Returns images that are no longer classified as `y`, or else clean ones.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1], all classified correctly.
            y: True classes.
            loss: What is maximised.
            generator: Source of the start, on the CPU.

        Shapes:
            x and the result: (N, C, H, W). y: (N,).
        """
        adversarial = x.clone()
        ascent = _Ascent(self, model, x, y, y, loss, self._start(x, generator))
        rows = torch.arange(len(x), device=x.device)
        for _ in ascent:
            if ascent.fooled.any():
                adversarial[rows[ascent.fooled]] = ascent.x_adv[ascent.fooled]
                if self.num_gradients == 1:
                    rows = rows[~ascent.fooled]
                    ascent.keep(~ascent.fooled)
        return adversarial

    def attack_targets(
        self,
        model: Network,
        x: Tensor,
        y: Tensor,
        num_targets: int,
        generator: Generator,
        *,
        max_rows: int,
    ) -> Tensor:
        """Returns images that are no longer classified as `y`, or else clean ones.

        Each target in turn, the most likely wrong class first, attacks the images that those before
        it left. Where there is room in a batch, several targets run at the same time in the hope
        that the earlier ones fool nobody; if one does, the later ones start anew, since what they
        draw depends on who is left.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1], all classified correctly.
            y: True classes.
            num_targets: How many wrong classes are tried.
            generator: Source of the starts, on the CPU.
            max_rows: How many images may go through the model at a time, if `x` has fewer.

        Shapes:
            x and the result: (N, C, H, W). y: (N,).
        """
        adversarial = x.clone()
        with torch.no_grad():
            targets = runners_up(model(x), num_targets)
        left = torch.arange(len(x), device=x.device)
        done = 0
        while done < num_targets and len(left):
            count = min(num_targets - done, max(1, max_rows // len(left)))
            starts, states = [], []
            for _ in range(count):
                starts.append(self._start(x[left], generator))
                states.append(generator.get_state())
            found = _Found(x[left], count)
            turn = torch.arange(count, device=x.device).repeat_interleave(len(left))
            place = torch.arange(len(left), device=x.device).repeat(count)
            rows = left[place]
            target = targets[rows, done + turn]
            start = torch.cat(starts)
            ascent = _Ascent(self, model, x[rows], y[rows], target, targeted_dlr, start)
            for _ in ascent:
                if ascent.fooled.any():
                    found.add(
                        turn[ascent.fooled], place[ascent.fooled], ascent.x_adv[ascent.fooled]
                    )
                    stays = ~ascent.fooled & (turn <= found.last)
                    turn, place = turn[stays], place[stays]
                    ascent.keep(stays)
            generator.set_state(states[found.last])
            fooled = found.turn == found.last
            adversarial[left[fooled]] = found.images[fooled]
            left = left[~fooled]
            done += found.last + 1
        return adversarial

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Projects onto the ball and onto valid pixels."""
        if self.norm == "Linf":
            return torch.min(torch.max(x_adv, x - self.eps), x + self.eps).clamp(0, 1)
        delta = x_adv - x
        length = lengths(delta)
        return (x + delta / (length + _TINY) * length.clamp(max=self.eps)).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Returns the direction of steepest ascent."""
        if self.norm == "Linf":
            return gradient.sign()
        return gradient / (lengths(gradient) + _TINY)

    def _start(self, x: Tensor, generator: Generator) -> Tensor:
        """Draws a start on the surface of the ball, on the CPU as the library does."""
        if self.norm == "Linf":
            noise = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
            length = noise.abs().flatten(1).amax(dim=1).view(-1, *[1] * (x.ndim - 1))
        else:
            noise = torch.randn(x.shape, generator=generator).to(x)
            length = lengths(noise)
        return (x + self.eps * (noise / (length + _TINY))).clamp(0, 1)


class _Found:
    """Images that fooled the model, of several targets that run at the same time.

    Attributes:
        images: The image found for each sample.
        turn: Of which target that is; the number of targets where there is none.
        last: The last target whose outcome counts: the first that fooled a sample.
    """

    def __init__(self, images: Tensor, count: int) -> None:
        self.images = images.clone()
        self.turn = torch.full((len(images),), count, device=images.device)
        self.last = count - 1

    def add(self, turn: Tensor, place: Tensor, images: Tensor) -> None:
        self.last = min(self.last, int(turn.min()))
        counts = turn == self.last
        self.images[place[counts]] = images[counts]
        self.turn[place[counts]] = self.last


class _Ascent:
    """The state of some samples' ascents; iterating takes the steps, and stops if nobody is left.

    Attributes:
        x_adv: Where the samples are.
        fooled: Whether each of them is misclassified there.
    """

    def __init__(
        self,
        attack: AutoPGD,
        model: Network,
        x: Tensor,
        y: Tensor,
        target: Tensor,
        loss: Loss,
        x_adv: Tensor,
    ) -> None:
        self._attack, self._model, self._loss = attack, model, loss
        self._x, self._y, self._target, self.x_adv = x, y, target, x_adv
        self._before = x_adv
        value, self._gradient, self.fooled = self._evaluate()
        self._best, self._best_value, self._best_gradient = x_adv, value, self._gradient
        self._checked_value, self._reduced = value, torch.ones_like(self.fooled)
        self._step_size = torch.full_like(value, 2 * attack.eps).view(-1, *[1] * (x.ndim - 1))
        # Zeros, of which the first check looks at one: row -1.
        self._values = value.new_zeros(attack.steps, len(x))

    def __iter__(self) -> Iterator[None]:
        """Yields before the first step and after each."""
        steps = self._attack.steps
        period, since_check = max(int(_FIRST_PERIOD * steps), 1), 0
        least, shrinks_by = (
            max(int(_LAST_PERIOD * steps), 1),
            max(int(_PERIOD_SHRINKS_BY * steps), 1),
        )
        yield
        for step in range(steps):
            if len(self.x_adv) == 0:
                return
            self._move(1.0 if step == 0 else _MOMENTUM_WEIGHT)
            value, self._gradient, self.fooled = self._evaluate(is_last=step == steps - 1)
            self._values[step] = value
            self._remember(value)
            yield
            since_check += 1
            if since_check == period:
                self._check(step, period)
                period, since_check = max(period - shrinks_by, least), 0

    def keep(self, stays: Tensor) -> None:
        """Goes on with some of the samples, (N,) bool."""
        for name, value in vars(self).items():
            if name == "_values":
                self._values = self._values[:, stays]
            elif isinstance(value, Tensor):
                setattr(self, name, value[stays])

    def _evaluate(self, *, is_last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Returns loss, gradient and who is fooled; the last iterate needs no gradient."""
        count = self._attack.num_gradients
        gradient = torch.zeros_like(self.x_adv)
        for _ in range(count):
            leaf = self.x_adv.detach().requires_grad_(not is_last)
            with torch.set_grad_enabled(not is_last):
                logits = self._model(leaf)
                value = self._loss(logits, self._y, self._target)
                total = value.sum()
            if not is_last:
                gradient += torch.autograd.grad(total, leaf)[0]
        return value.detach(), gradient / count, logits.detach().argmax(dim=1) != self._y

    def _move(self, weight: float) -> None:
        """Takes a step, and goes on by a part of the last one."""
        attack, x, x_adv = self._attack, self._x, self.x_adv
        last_step, self._before = x_adv - self._before, x_adv
        stepped = x_adv + self._step_size * attack.direction(self._gradient)
        stepped = attack.project(stepped, x)
        self.x_adv = attack.project(
            x_adv + (stepped - x_adv) * weight + last_step * (1 - weight), x
        )

    def _remember(self, value: Tensor) -> None:
        """Keeps the point of the highest loss."""
        better = value > self._best_value
        self._best_value = torch.where(better, value, self._best_value)
        better = better.view_as(self._step_size)
        self._best = torch.where(better, self.x_adv, self._best)
        self._best_gradient = torch.where(better, self._gradient, self._best_gradient)

    def _check(self, step: int, period: int) -> None:
        """Halves the step of samples that got stuck, and takes them back to their best point."""
        recent = self._values[torch.arange(step - period, step + 1)]
        num_ascents = (recent[1:] > recent[:-1]).sum(dim=0)
        is_stuck = (self._checked_value >= self._best_value) & ~self._reduced
        self._reduced = (num_ascents <= period * _LEAST_ASCENDING) | is_stuck
        self._checked_value = self._best_value
        goes_back = self._reduced.view_as(self._step_size)
        self._step_size = torch.where(goes_back, self._step_size / 2, self._step_size)
        self.x_adv = torch.where(goes_back, self._best, self.x_adv)
        self._gradient = torch.where(goes_back, self._best_gradient, self._gradient)
