"""What to evaluate with, as data.

No torch here, because the command line builds its flags from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from nasbench_at.config.allowed_values import Distinct, Matches, OneOf, Range, Seed, check_fields
from nasbench_at.config.architecture import Recipe

__all__ = [
    "ATTACK_NAMES",
    "AUTOATTACK_PARTS",
    "AASamples",
    "AttackNames",
    "EvaluationOptions",
    "NormName",
]

NormName = Literal["Linf", "L2"]
ATTACK_NAMES = ("fgsm", "pgd", "cw", "aa")
L2_ATTACK_NAMES = ("pgd", "aa")
AUTOATTACK_PARTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")

AttackNames = tuple[Annotated[str, OneOf(ATTACK_NAMES + AUTOATTACK_PARTS)], ...]
AASamples = (
    Annotated[int, Range("[1, inf)")]
    | Annotated[str, Matches(r"(100|\d{1,2}(\.\d+)?)%", "a percentage such as 12.5%")]
)


@dataclass(frozen=True)
class EvaluationOptions:
    """Attacks and their settings; what is unset follows from what is evaluated.

    Attributes:
        attacks: Some of fgsm, pgd (20 steps), cw (margin loss, 30 steps), aa (AutoAttack), or
            single parts of AutoAttack: apgd-ce, apgd-dlr, apgd-t, fab-t, square. Default fgsm pgd
            cw aa, under L2 pgd aa; with none at all, natural accuracy alone.
        eps: Radius, L-infinity in pixel scale [0, 1]; the run's own by default. Several give a
            curve of accuracy against eps.
        norm: Threat model, Linf or L2.
        step_size: Step of pgd and cw; the recipe's by default.
        restarts: Runs of pgd and cw with other random starts.
        recipe: Steps as in the paper (0.008 at 0.031, 0.003 for TRADES) or as in the authors' code
            (eps / 4, 0.003 for TRADES; FGSM from a random start); the run's own by default.
        counts: Whether the last iterate of pgd and cw counts, as in the paper, or any; any is
            stronger and faster. Default last for runs, any for other models.
        aa_samples: Let AutoAttack see a seeded random part of the test images: a count, or a
            percentage such as 12.5%.
        seed: Seed of random starts and of that part.
    """

    attacks: AttackNames | None = None
    eps: Annotated[tuple[Annotated[float, Range("[0, inf)")], ...], Distinct()] = ()
    norm: NormName = "Linf"
    step_size: Annotated[float, Range("(0, inf)")] | None = None
    restarts: Annotated[int, Range("[1, 10000]")] = 1
    recipe: Recipe | None = None
    counts: Literal["last", "any"] | None = None
    aa_samples: AASamples | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def attack_names(self) -> tuple[str, ...]:
        """The attacks, or the norm's default ones."""
        if self.attacks is not None:
            return self.attacks
        return ATTACK_NAMES if self.norm == "Linf" else L2_ATTACK_NAMES
