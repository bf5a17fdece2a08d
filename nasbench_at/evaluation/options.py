"""What to evaluate with, as data.

No torch here, because the command line builds its flags from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from nasbench_at.config.allowed_values import (
    Count,
    Distinct,
    InOrder,
    Matches,
    OneOf,
    Range,
    Seed,
    check_fields,
)
from nasbench_at.config.architecture import Recipe
from nasbench_at.config.run_config import NormName

__all__ = [
    "ATTACK_NAMES",
    "AUTOATTACK_PARTS",
    "CORRUPTIONS",
    "FEW_CLASSES",
    "ROW_NAMES",
    "SEVERITIES",
    "AttackNames",
    "EvaluationOptions",
    "Samples",
]

ATTACK_NAMES = ("fgsm", "pgd", "cw", "aa")
L2_ATTACK_NAMES = ("pgd", "aa")
AUTOATTACK_PARTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")

FEW_CLASSES = "apgd-ce+square"
"""What of AutoAttack can be run with two or three classes."""
_MOST_OF_FEW = 3
CORRUPTIONS = ("gaussian-noise", "shot-noise", "blur", "contrast", "brightness", "shift")
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTION_NAMES = ("corruptions", *(f"corrupt-{name}" for name in CORRUPTIONS))
ROW_NAMES = (*ATTACK_NAMES, *AUTOATTACK_PARTS, FEW_CLASSES, *CORRUPTION_NAMES, "smooth")
"""What can be asked for, each the name of a row."""

_ALSO_CALLED = (("autoattack", "aa"), ("auto-attack", "aa"), ("auto_attack", "aa"))
AttackNames = tuple[Annotated[str, OneOf(ROW_NAMES, _ALSO_CALLED)], ...]
Samples = (
    Annotated[int, Range("[1, inf)")]
    | Annotated[str, Matches(r"(100|\d{1,2}(\.\d+)?)%", "a percentage such as 12.5%")]
)


@dataclass(frozen=True)
class EvaluationOptions:
    """Attacks and their settings; what is unset follows from what is evaluated.

    Attributes:
        attacks: Some of fgsm, pgd (20 steps), cw (margin loss, 30 steps), aa (AutoAttack), or
            single parts of AutoAttack: apgd-ce, apgd-dlr, apgd-t, fab-t, square; apgd-ce+square for
            two or three classes, with which AutoAttack cannot be run; corruptions (common ones, and
            their mean) or single ones: corrupt-gaussian-noise, corrupt-shot-noise, corrupt-blur,
            corrupt-contrast, corrupt-brightness, corrupt-shift; smooth (certified under L2 by
            randomised smoothing). Default fgsm pgd cw aa, under L2 pgd aa, with two or
            three classes apgd-ce+square instead of aa; with none at all, natural accuracy alone.
        eps: Radius, L-infinity in pixel scale [0, 1]; the run's own by default. Several give a
            curve of accuracy against eps.
        norm: Threat model, Linf or L2; the run's own by default, of other models Linf.
        step_size: Step of pgd and cw; the recipe's by default.
        restarts: Runs of pgd and cw with other random starts.
        recipe: Steps as in the paper (0.008 at 0.031, 0.003 for TRADES) or as in the authors' code
            (eps / 4, 0.003 for TRADES; FGSM from a random start); the run's own by default.
        counts: Whether the last iterate of pgd and cw counts, as in the paper, or any; any is
            stronger and faster. Default last for runs, any for other models.
        num_images: Measure on a seeded random part of the test images: a count, or a percentage
            such as 12.5%.
        aa_samples: Let AutoAttack see a part of these, likewise.
        severities: Severities of corruptions, of 1 to 5; of several there is a row each, and their
            mean.
        smooth_sigma: Standard deviation of the noise of smooth, in pixel scale.
        smooth_n0: Noisy images that choose the smoothed network's class of an image.
        smooth_n: Noisy images that estimate how likely it is.
        smooth_alpha: Probability that a certificate is wrong.
        smooth_samples: Let smooth see a part of the images, likewise.
        seed: Seed of random starts, of corruptions' and smooth's noise, and of those parts.
    """

    attacks: AttackNames | None = None
    eps: Annotated[tuple[Annotated[float, Range("[0, inf)")], ...], Distinct()] = ()
    norm: NormName | None = None
    step_size: Annotated[float, Range("(0, inf)")] | None = None
    restarts: Annotated[int, Range("[1, 10000]")] = 1
    recipe: Recipe | None = None
    counts: Literal["last", "any"] | None = None
    num_images: Samples | None = None
    aa_samples: Samples | None = None
    severities: Annotated[tuple[Annotated[int, Range("[1, 5]")], ...], Distinct(), InOrder()] = (
        SEVERITIES
    )
    smooth_sigma: Annotated[float, Range("(0, inf)")] = 0.25
    smooth_n0: Count = 100
    smooth_n: Count = 100_000
    smooth_alpha: Annotated[float, Range("(0, 1)")] = 0.001
    smooth_samples: Samples | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.severities:
            raise ValueError("severities must be one of 1 to 5 at least, got an empty list")

    @property
    def attack_names(self) -> tuple[str, ...]:
        """The attacks, or the norm's default ones."""
        if self.attacks is not None:
            return self.attacks
        return L2_ATTACK_NAMES if self.norm == "L2" else ATTACK_NAMES

    def for_classes(self, num_classes: int) -> EvaluationOptions:
        """Returns these options with default attacks that so few classes have."""
        if self.attacks is not None or num_classes > _MOST_OF_FEW:
            return self
        names = (FEW_CLASSES if name == "aa" else name for name in self.attack_names)
        return replace(self, attacks=tuple(names))
