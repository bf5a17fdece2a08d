"""What attacks maximise: functions from logits to one value a sample.

Values are per sample and never averaged: an attack adds them up, so that each image's gradient is
its own and does not shrink with the batch, which would lose its sign in half precision.

Letters: N samples, C classes.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor


class Objective(Protocol):
    """Maps logits (N, C) and classes (N,) to values (N,); larger is worse for the model."""

    def __call__(self, logits: Tensor, target: Tensor, /) -> Tensor:
        """Returns the value of each sample."""


@runtime_checkable
class BatchObjective(Objective, Protocol):
    """An objective that knows something about each sample of one batch."""

    def subset(self, rows: Tensor) -> Objective:
        """Returns the objective of the samples `rows` alone; some attacks drop the others."""


def cross_entropy_objective(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the cross-entropy of each sample."""
    return F.cross_entropy(logits, target, reduction="none")


def margin_objective(logits: Tensor, target: Tensor, *, confidence: float = 50.0) -> Tensor:
    r"""Returns the margin objective of Carlini and Wagner.

    .. math:: -\max(z_y - \max_{j \ne y} z_j + \kappa, 0)

    It still rises after the class has changed, until the wrong class leads by `confidence`.

    Args:
        logits: Scores z.
        target: True classes y.
        confidence: Kappa.

    Shapes:
        logits: (N, C), C at least 2. target: (N,). Result: (N,).

    Reference:
        Carlini and Wagner 2017, Eq. (6); confidence 50 as in the authors' code (d12306/dsnet).
    """
    return -torch.relu(lead(logits, target) + confidence)


def runners_up(logits: Tensor, count: int) -> Tensor:
    """Returns the most likely classes after the predicted one, (N, count), the likeliest first."""
    return logits.sort(dim=1).indices.flip(1)[:, 1 : count + 1]


def lead(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns by how much a class leads all others; at 0 or below it is not predicted.

    Shapes:
        logits: (N, C), C at least 2. classes and result: (N,).
    """
    others = logits.scatter(1, classes.unsqueeze(1), -torch.inf).max(dim=1).values
    return logits_of(logits, classes) - others


def logits_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the logit of one class of each sample, (N,)."""
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def margin_loss(logits: Tensor, target: Tensor, *, confidence: float = 50.0) -> Tensor:
    """Returns the sum of `margin_objective` over the batch, as the authors' code has it."""
    return margin_objective(logits, target, confidence=confidence).sum()


class KLObjective:
    """The divergence of adversarial from natural predictions, which TRADES maximises.

    The natural predictions are the same at all steps of an attack: compute their logits once and
    make an objective for the batch. Labels are not looked at.

    Shapes:
        natural_logits: (N, C).

    Reference:
        Zhang et al. 2019, Algorithm 1: KL(softmax natural || softmax adversarial).
    """

    def __init__(self, natural_logits: Tensor) -> None:
        self._log_probabilities = F.log_softmax(natural_logits.detach(), dim=1)

    def __call__(self, logits: Tensor, target: Tensor, /) -> Tensor:
        """Returns the divergence of each sample, (N,)."""
        adversarial = F.log_softmax(logits, dim=1)
        return F.kl_div(
            adversarial, self._log_probabilities, reduction="none", log_target=True
        ).sum(dim=1)

    def subset(self, rows: Tensor) -> KLObjective:
        """Returns the objective of the samples `rows` alone."""
        # Log-probabilities are logits of the same distribution.
        return KLObjective(self._log_probabilities[rows])


def restrict(objective: Objective, rows: Tensor | None) -> Objective:
    """Returns the objective for the samples `rows` of its batch, or for all of them."""
    if rows is None or not isinstance(objective, BatchObjective):
        return objective
    return objective.subset(rows)


def describe(objective: Objective) -> dict[str, str | float]:
    """Returns the objective's name, and the options it was bound to by `functools.partial`."""
    options: dict[str, float] = {}
    named: object = objective
    if isinstance(objective, partial):
        named, options = objective.func, objective.keywords
    name: str = getattr(named, "__name__", type(named).__name__)
    return {"objective": name.removesuffix("_objective"), **options}
