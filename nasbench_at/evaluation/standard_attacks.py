"""The attacks whose numbers papers report, by name, with the paper's or the authors' steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from nasbench_at.attacks import FGSM, L2PGD, Attack, AutoAttack, LinfPGD, MarginPGD, Verdict
from nasbench_at.config.architecture import Recipe
from nasbench_at.evaluation.options import ATTACK_NAMES, AUTOATTACK_PARTS, NormName

__all__ = [
    "ATTACK_NAMES",
    "AUTOATTACK_PARTS",
    "check_attacks",
    "standard_attacks",
    "standard_step",
]

_PAPER_EPS = 0.031
_SMALL_STEP_METHODS = frozenset({"trades", "fat_trades"})


def standard_step(eps: float, *, recipe: Recipe = "paper", method: str = "at") -> float:
    """Returns the step of the L∞ PGD and C&W evaluations.

    Args:
        eps: L∞ radius. At 0.031 the step is 0.003 for networks trained by TRADES, else 0.008
            (paper) or 0.031 / 4 (authors' code); it scales with eps.
        recipe: Whose step.
        method: How the network was trained.

    Reference:
        Sec. 4.1 of the paper; the authors' code (d12306/dsnet).
    """
    if method in _SMALL_STEP_METHODS:
        return 0.003 * eps / _PAPER_EPS
    return eps / 4 if recipe == "authors" else 0.008 * eps / _PAPER_EPS


def standard_attacks(
    names: Sequence[str],
    *,
    eps: float,
    norm: NormName = "Linf",
    recipe: Recipe = "paper",
    method: str = "at",
    step_size: float | None = None,
    restarts: int = 1,
    verdict: Verdict = "last",
    seed: int = 0,
) -> dict[str, Attack]:
    """Returns the paper's attacks (Sec. 4.1) by name.

    Args:
        names: Some of ``fgsm`` (one step of eps), ``pgd`` (20 steps), ``cw`` (margin loss,
            confidence 50, 30 steps), ``aa`` (AutoAttack, standard) and single parts of AutoAttack:
            ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab-t``, ``square``. Under L2 all but the
            first and the third.
        eps: Radius; L∞ in pixel scale [0, 1].
        norm: ``Linf`` or ``L2``.
        recipe: The authors' FGSM starts at random, the paper's at the image; for the steps see
            :func:`standard_step`.
        method: How the network was trained.
        step_size: Step of ``pgd`` and ``cw``; by default the recipe's, and under L2
            2.5 eps / 20, as is usual there.
        restarts: Runs of ``pgd`` and ``cw``; an image survives if it survives all.
        verdict: Whether the ``last`` or ``any`` iterate of ``pgd`` and ``cw`` counts.
        seed: Seed of AutoAttack.

    Raises:
        ValueError: If a name is unknown, or not there under the norm, or a value out of range.
    """
    step = standard_step(eps, recipe=recipe, method=method) if norm == "Linf" else 2.5 * eps / 20
    step = step if step_size is None else step_size
    auto = partial(AutoAttack, eps, norm=norm, seed=seed)
    attacks: dict[str, Callable[[], Attack]] = {
        "fgsm": lambda: FGSM(eps, random_start=recipe == "authors"),
        "pgd": lambda: (LinfPGD if norm == "Linf" else L2PGD)(
            eps, step_size=step, steps=20, restarts=restarts, verdict=verdict
        ),
        "cw": lambda: MarginPGD(
            eps, step_size=step, steps=30, restarts=restarts, verdict=verdict, confidence=50.0
        ),
        "aa": auto,
        **{part: partial(auto, attacks=(part,)) for part in AUTOATTACK_PARTS},
    }
    if norm == "L2":
        del attacks["fgsm"], attacks["cw"]
    for name in names:
        if name not in attacks:
            under = " under L2" if norm == "L2" else ""
            raise ValueError(f"attack must be one of {', '.join(attacks)}{under}, got {name!r}")
    return {name: attacks[name]() for name in names}


def check_attacks(attacks: Iterable[Attack], num_classes: int, image_shape: Sequence[int]) -> None:
    """Raises a ValueError if an attack cannot work with so few classes or so small images.

    Args:
        attacks: What is to be run.
        num_classes: Number of classes.
        image_shape: Channels, height and width.
    """
    for attack in attacks:
        if isinstance(attack, AutoAttack):
            attack.check_data(num_classes, image_shape)
