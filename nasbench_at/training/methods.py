"""Ways of training: each pairs an inner attack with a loss.

A user's own method is a class with the three members of :class:`Method`, made from the
run's configuration by a function that :func:`register_method` registers, in a file named by
``--plugins``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from blocks.registry import suggest
from nasbench_at.attacks import PGD_BY_NORM, GradientAttack, KLObjective, attack_mode
from nasbench_at.config import ResolvedConfig
from nasbench_at.training.losses import mart_loss, trades_loss

__all__ = [
    "AdversarialTraining",
    "LossAndLogits",
    "Mart",
    "Method",
    "StandardTraining",
    "Trades",
    "create_method",
    "list_methods",
    "register_method",
    "training_attack",
]


class LossAndLogits(NamedTuple):
    """The loss to minimise, a scalar, and the logits that count as training accuracy."""

    loss: Tensor
    logits: Tensor


class Method(Protocol):
    """How a batch becomes a loss; called once a step in this order: perturb, loss."""

    def start_epoch(self, epoch: int) -> Method:
        """Returns the method as it is in an epoch, counted from 1."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns the images to train on; leaves the model as it was.

        Args:
            model: The bare network.
            x: Clean images in [0, 1], shape ``(N, C, H, W)``.
            y: True classes, shape ``(N,)``.
            generator: Source of all randomness, on the device of ``x``.
        """

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Runs the model, which is in training mode, and returns what to minimise.

        Args:
            model: The network as wrapped for training.
            x: Clean images.
            x_adv: What :meth:`perturb` returned.
            y: True classes.
        """


MethodFactory: TypeAlias = Callable[[ResolvedConfig], Method]
_METHODS: dict[str, MethodFactory] = {}


def register_method(name: str) -> Callable[[MethodFactory], MethodFactory]:
    """Registers a way of training under a name.

    The factory receives the run's configuration.

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


def create_method(name: str, config: ResolvedConfig) -> Method:
    """Builds a registered method.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _METHODS:
        raise ValueError(f"unknown method {name!r}; {suggest(name, _METHODS)}")
    return _METHODS[name](config)


def training_attack(config: ResolvedConfig) -> GradientAttack:
    """Returns the inner attack that a configuration describes."""
    return PGD_BY_NORM[config.norm](
        config.eps,
        step_size=config.step_size,
        steps=config.attack_steps,
        start=config.attack_start,
        noise=config.attack_noise,
    )


def early_stop_attack(config: ResolvedConfig) -> GradientAttack:
    """Returns FAT's inner attack as it is in the first epoch."""
    return replace(training_attack(config), tau=0)


def natural_objective(model: nn.Module, x: Tensor) -> KLObjective:
    """Returns TRADES' inner objective: the divergence from the model's output on clean images.

    The natural logits are those of eval mode, as in the official code, and are computed here once
    for all steps of the attack.
    """
    with attack_mode(model), torch.no_grad():
        return KLObjective(model(x))


class StandardTraining:
    """Cross entropy on the clean images."""

    def start_epoch(self, epoch: int) -> StandardTraining:
        """Returns itself: all epochs are alike."""
        return self

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns the clean images."""
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Returns the cross entropy on them."""
        logits: Tensor = model(x)
        return LossAndLogits(F.cross_entropy(logits, y), logits)


@dataclass(frozen=True)
class AdversarialTraining:
    """Cross entropy on the images of an attack, Eqs. (1) and (6) of the DS-Net paper.

    With PGD it is Madry et al. (ICLR 2018), with one step in training mode Fast AT (Wong et al.,
    ICLR 2020), with early stop FAT (Zhang et al., ICML 2020). Fast AT's official code
    lets the attack's forward pass update the BatchNorm statistics; here no attack does.

    Attributes:
        attack: The inner attack.
        tau_milestones: FAT: epochs from which a fooled image takes one more step.
    """

    attack: GradientAttack
    tau_milestones: tuple[int, ...] = ()

    def start_epoch(self, epoch: int) -> AdversarialTraining:
        """Returns the method with the attack of an epoch."""
        return replace(self, attack=attack_of_epoch(self.attack, self.tau_milestones, epoch))

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns the attack's images."""
        return self.attack(model, x, y, generator=generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Returns the cross entropy on them."""
        logits: Tensor = model(x_adv)
        return LossAndLogits(F.cross_entropy(logits, y), logits)


@dataclass(frozen=True)
class Trades:
    """TRADES, Eqs. (3) and (4) of the DS-Net paper; with an early-stopping attack, FAT for TRADES.

    The model sees the adversarial images first, then the clean ones, as in the DS-Net authors'
    code; the official code runs the clean ones a second time before.

    Attributes:
        attack: The inner attack; it maximises the divergence from the natural logits.
        beta: Weight of the robust term.
        tau_milestones: As in :class:`AdversarialTraining`.
    """

    attack: GradientAttack
    beta: float
    tau_milestones: tuple[int, ...] = ()

    def start_epoch(self, epoch: int) -> Trades:
        """Returns the method with the attack of an epoch."""
        return replace(self, attack=attack_of_epoch(self.attack, self.tau_milestones, epoch))

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns images whose logits are far from the natural ones."""
        objective = natural_objective(model, x)
        return self.attack(model, x, y, generator=generator, objective=objective)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Returns the TRADES loss."""
        adversarial: Tensor = model(x_adv)
        natural: Tensor = model(x)
        return LossAndLogits(trades_loss(natural, adversarial, y, beta=self.beta), adversarial)


@dataclass(frozen=True)
class Mart:
    """MART (Wang et al., ICLR 2020) on PGD's images, adversarial images first.

    Attributes:
        attack: The inner attack, on the cross entropy.
        beta: Weight of the robust term.
    """

    attack: GradientAttack
    beta: float

    def start_epoch(self, epoch: int) -> Mart:
        """Returns itself: all epochs are alike."""
        return self

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Returns the attack's images."""
        return self.attack(model, x, y, generator=generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossAndLogits:
        """Returns the MART loss."""
        adversarial: Tensor = model(x_adv)
        natural: Tensor = model(x)
        return LossAndLogits(mart_loss(natural, adversarial, y, beta=self.beta), adversarial)


def attack_of_epoch(
    attack: GradientAttack, tau_milestones: tuple[int, ...], epoch: int
) -> GradientAttack:
    """Returns FAT's attack with the tau of an epoch, and any other attack as it is."""
    if attack.tau is None:
        return attack
    return replace(attack, tau=sum(epoch >= milestone for milestone in tau_milestones))


@register_method("st")
def _standard_training(config: ResolvedConfig) -> Method:
    return StandardTraining()


@register_method("at")
def _adversarial_training(config: ResolvedConfig) -> Method:
    return AdversarialTraining(training_attack(config))


@register_method("trades")
def _trades(config: ResolvedConfig) -> Method:
    return Trades(training_attack(config), _beta(config))


@register_method("mart")
def _mart(config: ResolvedConfig) -> Method:
    return Mart(training_attack(config), _beta(config))


@register_method("fat")
def _fat(config: ResolvedConfig) -> Method:
    taus = config.tau_milestones or ()
    return AdversarialTraining(early_stop_attack(config), taus)


@register_method("fat_trades")
def _fat_trades(config: ResolvedConfig) -> Method:
    taus = config.tau_milestones or ()
    return Trades(early_stop_attack(config), _beta(config), taus)


@register_method("fast_at")
def _fast_at(config: ResolvedConfig) -> Method:
    return AdversarialTraining(replace(training_attack(config), mode="train"))


def _beta(config: ResolvedConfig) -> float:
    if config.beta is None:
        raise ValueError("beta must be set for this method, got None")
    return config.beta
