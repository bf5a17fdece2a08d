"""Signs that a robustness number cannot be trusted.

A defence that hides its gradients looks robust to gradient attacks without being so. Each check
looks for one symptom; a failed check does not prove the number wrong but asks for a second look.

Reference:
    Athalye et al. 2018; Carlini et al. 2019, Section 3; the flags of AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from .gradient import GradientAttack, input_gradient
from .guard import attack_mode
from .inputs import check_inputs
from .objectives import cross_entropy_objective

STOCHASTIC_TOLERANCE = 1e-4
"""Largest change of the logits, relative to their length, that rounding may explain."""
PROBABILITY_TOLERANCE = 1e-5
MORE_STEPS = 10
MORE_STEPS_DROP = 0.05
"""Ten times the steps may lower the robust accuracy by this share of the samples."""
UNBOUNDED_STEPS = 20
UNBOUNDED_ACCURACY = 0.05
"""Share of the samples that may survive a budget within which every image lies."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: Stable name of the check.
        passed: False if the symptom was found.
        detail: One line with the numbers that decided.
    """

    name: str
    passed: bool
    detail: str


def run_checks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: GradientAttack,
    generator: Generator | None = None,
) -> tuple[CheckResult, ...]:
    """Looks for signs that `attack` overestimates the robustness of `model`.

    The cost is that of about 11 attacks: give it some 100 samples, not the whole test set. An
    attack of one step fails `more_steps` on almost every model; use the iterative attack whose
    number is reported.

    Args:
        model: Maps images to logits.
        x: Images in [0, 1].
        y: True classes.
        attack: The attack whose verdict is to be trusted; its mode is used throughout.
        generator: Source of randomness, left untouched; by default a new one with seed 0.

    Shapes:
        x: (N, ...). y: (N,), int64.

    Returns:
        `input_gradients`: no sample's gradient is exactly zero or not finite.
        `deterministic`: two forward passes agree.
        `logits`: the output does not look like probabilities.
        `more_steps`: 10 times the steps fool at most 5 % of the samples more, any iterate counted.
        `unbounded`: a budget within which every image lies leaves at most 5 % correct, likewise.

    Raises:
        ValueError: If `check_inputs` refuses `x` or `y`.
    """
    check_inputs(x, y)
    generator = generator or torch.Generator(x.device).manual_seed(0)
    return (
        check_input_gradients(model, x, y, attack=attack),
        check_deterministic(model, x, attack=attack),
        check_logits(model, x, attack=attack),
        check_more_steps(model, x, y, attack=attack, generator=generator),
        check_unbounded(model, x, y, attack=attack, generator=generator),
    )


def check_input_gradients(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack
) -> CheckResult:
    """Fails if a clean sample's cross-entropy gradient is zero everywhere, or not finite."""
    with attack_mode(model, attack.mode):
        gradient = input_gradient(model, x, y, cross_entropy_objective).flatten(1)
    num_zero = int((gradient == 0).all(dim=1).sum())
    num_bad = int((~gradient.isfinite()).any(dim=1).sum())
    pixels = (gradient == 0).float().mean().item()
    detail = (
        f"{num_zero} of {len(x)} samples have a zero gradient, {num_bad} one that is not finite; "
        f"{pixels:.1%} of all pixels have gradient zero"
    )
    return CheckResult("input_gradients", num_zero == num_bad == 0, detail)


def check_deterministic(model: nn.Module, x: Tensor, *, attack: GradientAttack) -> CheckResult:
    """Fails if two forward passes on the same images differ by more than rounding."""
    with attack_mode(model, attack.mode), torch.no_grad():
        first, second = model(x).float(), model(x).float()
    scale = first.norm(dim=1).clamp(min=torch.finfo(first.dtype).tiny)
    change = ((first - second).norm(dim=1) / scale).max().item()
    detail = f"two forward passes differ by {change:.2g} of the logits' length"
    return CheckResult("deterministic", change <= STOCHASTIC_TOLERANCE, detail)


def check_logits(model: nn.Module, x: Tensor, *, attack: GradientAttack) -> CheckResult:
    """Fails if the output is a probability distribution: its gradients vanish where it is sure."""
    with attack_mode(model, attack.mode), torch.no_grad():
        output = model(x).float()
    low, high = (bound.item() for bound in output.aminmax())
    off = (output.sum(dim=1) - 1).abs().max().item()
    is_probability = low >= 0 and high <= 1 and off <= PROBABILITY_TOLERANCE
    detail = f"outputs lie in [{low:.3g}, {high:.3g}], rows sum to 1 within {off:.2g}"
    return CheckResult("logits", not is_probability, detail)


def check_more_steps(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack, generator: Generator
) -> CheckResult:
    """Fails if the attack has not converged: 10 times its steps fool many more samples."""
    attack = _count_any(attack)
    longer = replace(attack, steps=MORE_STEPS * attack.steps)
    before = _robust_accuracy(model, x, y, attack=attack, generator=generator)
    after = _robust_accuracy(model, x, y, attack=longer, generator=generator)
    detail = (
        f"robust accuracy {before:.1%} with {attack.steps} steps, "
        f"{after:.1%} with {longer.steps}, on {len(x)} samples"
    )
    return CheckResult("more_steps", before - after <= MORE_STEPS_DROP, detail)


def check_unbounded(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack, generator: Generator
) -> CheckResult:
    """Fails if samples survive although the attack may turn them into any image."""
    eps = attack.norm.diameter(x[0].numel())
    unbounded = replace(_count_any(attack), eps=eps, step_size=eps / 4, steps=UNBOUNDED_STEPS)
    accuracy = _robust_accuracy(model, x, y, attack=unbounded, generator=generator)
    detail = (
        f"robust accuracy {accuracy:.1%} at eps {eps:.3g}, "
        f"{UNBOUNDED_STEPS} steps, on {len(x)} samples"
    )
    return CheckResult("unbounded", accuracy <= UNBOUNDED_ACCURACY, detail)


def _count_any(attack: GradientAttack) -> GradientAttack:
    """Lets samples leave that are fooled or repeat themselves, where the attack allows that.

    The checks ask what can be fooled, not where the last step ends, and take a third of the time.
    """
    if attack.mode == "train" or attack.tau is not None:
        return attack
    return replace(attack, counts="any")


def _robust_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: GradientAttack, generator: Generator
) -> float:
    """Returns the share of samples that survive, always from the generator's present state."""
    x_adv = attack(model, x, y, generator=generator.clone_state())
    with attack_mode(model, attack.mode), torch.no_grad():
        logits: Tensor = model(x_adv)
    return (logits.argmax(dim=1) == y).float().mean().item()
