"""Evaluation: a model and images in, a robustness report with counts and intervals out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nasbench_at.attacks import (
    FGSM,
    Attack,
    AutoAttack,
    CheckResult,
    LinfPGD,
    MarginPGD,
    attack_mode,
    check_inputs,
    run_checks,
)
from nasbench_at.attacks.gradient import GradientAttack
from nasbench_at.data import LabelledImages
from nasbench_at.seeding import make_generator

__all__ = [
    "ATTACK_NAMES",
    "AttackResult",
    "RobustnessReport",
    "check_aa_samples",
    "evaluate",
    "standard_attacks",
    "wilson_interval",
]

ATTACK_NAMES = ("fgsm", "pgd", "cw", "aa")
NUM_CHECKED = 100
"""Images on which the trust checks run: they cost about eleven attacks."""


@dataclass(frozen=True)
class AttackResult:
    """Accuracy on some images under one attack.

    Attributes:
        num_samples: Images evaluated.
        num_correct: Images still classified correctly.
        settings: The attack's settings; empty for natural accuracy.
        seconds: Time it took.
    """

    num_samples: int
    num_correct: int
    settings: Mapping[str, Any]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return self.num_correct / self.num_samples

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.num_correct, self.num_samples)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data, accuracy and interval among them."""
        return {**asdict(self), "accuracy": self.accuracy, "interval": list(self.interval)}


@dataclass(frozen=True)
class RobustnessReport:
    """What an evaluation found.

    Attributes:
        results: By attack name: ``natural``, then the attacks as run. ``aa`` is AutoAttack's worst
            case; ``worst_case`` counts the images that no attack fooled, where all attacks saw the
            same images.
        outcomes: By the same names, and ``aa/<attack>`` for AutoAttack's parts: whether each image
            is still classified correctly, shape ``(num_samples,)``.
        checks: Signs that the numbers cannot be trusted, looked for with the first iterative
            attack; empty if there was none.
        seed: Seed of all random starts.
    """

    results: Mapping[str, AttackResult]
    outcomes: Mapping[str, Tensor]
    checks: Sequence[CheckResult]
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready data without the per-sample outcomes."""
        return {
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "checks": [asdict(check) for check in self.checks],
            "seed": self.seed,
        }


def wilson_interval(num_correct: int, num_samples: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a proportion.

    Args:
        num_correct: Successes.
        num_samples: Trials, at least 1.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    share = num_correct / num_samples
    centre = share + z * z / (2 * num_samples)
    spread = z * math.sqrt(share * (1 - share) / num_samples + (z / (2 * num_samples)) ** 2)
    scale = 1 + z * z / num_samples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def standard_attacks(
    names: Sequence[str], *, eps: float, step_size: float | None = None, seed: int = 0
) -> dict[str, Attack]:
    """Returns the paper's attacks (Sec. 4.1) by name.

    Args:
        names: Some of ``fgsm`` (step eps from the image), ``pgd`` (20 steps), ``cw`` (margin loss,
            confidence 50, 30 steps) and ``aa`` (AutoAttack, standard).
        eps: L∞ radius in pixel scale [0, 1].
        step_size: Step of ``pgd`` and ``cw``; the default eps / 4 is 0.00775 at 0.031, as in the
            authors' code (the paper rounds it to 0.008).
        seed: Seed of AutoAttack.

    Raises:
        ValueError: If a name is unknown or a value out of range.
    """
    attacks: dict[str, Callable[[], Attack]] = {
        "fgsm": lambda: FGSM(eps),
        "pgd": lambda: LinfPGD(eps, step_size=step_size, steps=20),
        "cw": lambda: MarginPGD(eps, step_size=step_size, steps=30, confidence=50.0),
        "aa": lambda: AutoAttack(eps, seed=seed),
    }
    for name in names:
        if name not in attacks:
            raise ValueError(f"attack must be one of {', '.join(attacks)}, got {name!r}")
    return {name: attacks[name]() for name in names}


def evaluate(
    model: nn.Module,
    data: LabelledImages,
    attacks: Mapping[str, Attack],
    *,
    batch_size: int = 256,
    seed: int = 0,
    aa_samples: int | None = None,
    on_result: Callable[[str, AttackResult], None] | None = None,
) -> RobustnessReport:
    """Measures natural accuracy and accuracy under attacks, in float32 and eval mode.

    Args:
        model: Images in [0, 1] to logits.
        data: Images and labels on the model's device.
        attacks: What to run, by the name of its row, such as :func:`standard_attacks` returns.
        batch_size: Images at a time; AutoAttack has its own.
        seed: Seed of random starts.
        aa_samples: Let AutoAttack see only the first so many images.
        on_result: Called with each row as soon as it is known.

    Returns:
        The report.

    Raises:
        ValueError: If images or labels are not usable, or ``aa_samples`` out of range.
    """
    check_aa_samples(aa_samples, data)
    _check_data(model, data)
    results: dict[str, AttackResult] = {}
    outcomes: dict[str, Tensor] = {}

    def add(name: str, correct: Tensor, settings: Mapping[str, Any], seconds: float) -> None:
        outcomes[name] = correct.cpu()
        results[name] = AttackResult(len(correct), int(correct.sum()), settings, seconds)
        if on_result is not None:
            on_result(name, results[name])

    start = time.perf_counter()
    correct = torch.cat([_correct(model, x, y) for x, y in data.batches(batch_size)])
    add("natural", correct, {}, time.perf_counter() - start)
    for name, attack in attacks.items():
        start = time.perf_counter()
        if isinstance(attack, AutoAttack):
            part = data if aa_samples is None else data.first(aa_samples)
            verdict = attack.run(model, *part.take(torch.arange(len(part))))
            outcomes.update(
                {f"aa/{step}": robust.cpu() for step, robust in verdict.robust_after.items()}
            )
            correct = verdict.robust
        else:
            correct = _under_attack(model, data, attack, name, batch_size=batch_size, seed=seed)
        add(name, correct, attack.settings(), time.perf_counter() - start)
    rows = [outcomes[name] for name in results]
    if len(rows) > 1 and len({len(row) for row in rows}) == 1:
        add("worst_case", torch.stack(rows).all(dim=0), {"attacks": list(attacks)}, 0.0)
    checks = _check_trust(model, data, attacks)
    return RobustnessReport(results, outcomes, checks, seed)


def check_aa_samples(aa_samples: int | None, data: LabelledImages) -> None:
    """Raises a ValueError if AutoAttack cannot be given so many of the images."""
    if aa_samples is not None and not 1 <= aa_samples <= len(data):
        raise ValueError(f"aa_samples must lie in 1..{len(data)}, got {aa_samples}")


def _check_data(model: nn.Module, data: LabelledImages) -> None:
    """Checks the labels once; images of uint8 cannot leave [0, 1]."""
    if len(data) == 0:
        raise ValueError("there are no images to evaluate")
    x, _ = data.take(torch.arange(1))
    with attack_mode(model), torch.no_grad():
        num_classes = int(model(x).shape[1])
    check_inputs(x.expand(len(data), *x.shape[1:]), data.labels, num_classes=num_classes)


def _under_attack(
    model: nn.Module,
    data: LabelledImages,
    attack: Attack,
    name: str,
    *,
    batch_size: int,
    seed: int,
) -> Tensor:
    correct = []
    for i, (x, y) in enumerate(data.batches(batch_size)):
        generator = make_generator(seed, "evaluation", name, i, device=x.device)
        correct.append(_correct(model, attack(model, x, y, generator=generator), y))
    return torch.cat(correct)


def _correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with attack_mode(model), torch.no_grad():
        logits: Tensor = model(x)
    return logits.argmax(dim=1) == y


def _check_trust(
    model: nn.Module, data: LabelledImages, attacks: Mapping[str, Attack]
) -> tuple[CheckResult, ...]:
    iterative = [a for a in attacks.values() if isinstance(a, GradientAttack) and a.steps > 1]
    if not iterative:
        return ()
    x, y = data.take(torch.arange(min(NUM_CHECKED, len(data)), device=data.labels.device))
    return run_checks(model, x, y, attack=iterative[0])
