"""Ways of training: each pairs an inner attack with a loss."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from nasbench_at.attacks import LinfPGD
from nasbench_at.config import Hyperparameters

__all__ = [
    "AdversarialTraining",
    "LossAndLogits",
    "Method",
    "create_method",
    "list_methods",
    "register_method",
]


class LossAndLogits(NamedTuple):
    """The loss to minimise, a scalar, and the logits that count as training accuracy."""

    loss: Tensor
    logits: Tensor


class Method(Protocol):
    """How a batch becomes a loss; called once a step in this order: perturb, loss."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns the images to train on; leaves the model as it was.

        Args:
            model: The bare network.
            x: Clean images in [0, 1], shape ``(N, C, H, W)``.
            y: True classes, shape ``(N,)``.
            generator: Source of all randomness, on the device of ``x``.
        """

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Runs the model in training mode and returns what to minimise.

        Args:
            model: The network as wrapped for training.
            x: Clean images.
            x_adv: What :meth:`perturb` returned.
            y: True classes.
        """


MethodFactory: TypeAlias = Callable[[Hyperparameters], Method]
_METHODS: dict[str, MethodFactory] = {}


def register_method(name: str) -> Callable[[MethodFactory], MethodFactory]:
    """Registers a way of training under a name.

    The factory receives the run's hyper-parameters.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _METHODS:
        raise ValueError(f"method {name!r} is registered already; choose another name")

    def decorate(factory: MethodFactory) -> MethodFactory:
        _METHODS[name] = factory
        return factory

    return decorate


def list_methods() -> tuple[str, ...]:
    """Returns the names of all registered methods."""
    return tuple(_METHODS)


def create_method(name: str, hyperparameters: Hyperparameters) -> Method:
    """Builds a registered method.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _METHODS:
        near = difflib.get_close_matches(name, _METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown method {name!r}; {hint}known: {', '.join(_METHODS)}")
    return _METHODS[name](hyperparameters)


def training_attack(hyperparameters: Hyperparameters) -> LinfPGD:
    """Returns the inner attack that hyper-parameters describe."""
    return LinfPGD(
        hyperparameters.eps,
        step_size=hyperparameters.step_size,
        steps=hyperparameters.attack_steps,
        start=hyperparameters.attack_start,
        noise=hyperparameters.attack_noise,
    )


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross entropy on PGD's images, Eqs. (1) and (6) of the paper.

    Reference:
        Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    attack: LinfPGD

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns PGD's images."""
        return self.attack(model, x, y, generator=generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Returns the cross entropy on them."""
        logits: Tensor = model(x_adv)
        return LossAndLogits(F.cross_entropy(logits, y), logits)


@register_method("at")
def _adversarial_training(hyperparameters: Hyperparameters) -> Method:
    return AdversarialTraining(training_attack(hyperparameters))
