"""The attacks whose numbers papers report, by name, with the paper's or the authors' steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from nasbench_at.attacks import (
    FGSM,
    PGD_BY_NORM,
    Attack,
    AutoAttack,
    Counts,
    MarginPGD,
)
from nasbench_at.config.architecture import Recipe
from nasbench_at.config.run_config import NormName
from nasbench_at.evaluation.options import AUTOATTACK_PARTS, FEW_CLASSES

__all__ = ["check_attacks", "standard_attacks", "standard_step"]

_PAPER_EPS = 0.031
_SMALL_STEP_METHODS = frozenset({"trades", "fat_trades"})


def standard_step(
    eps: float, *, norm: NormName = "Linf", recipe: Recipe = "paper", method: str = "at"
) -> float:
    """Returns the step of the PGD and C&W evaluations.

    Args:
        eps: Radius. At L∞ 0.031 the step is 0.003 for networks trained by TRADES, else 0.008
            (paper) or 0.031 / 4 (authors' code); it scales with eps.
        norm: Under L2 the step is 2.5 eps / 20, as is usual there, whatever else is asked for.
        recipe: Whose step.
        method: How the network was trained.

    Reference:
        Sec. 4.1 of the paper; the authors' code (d12306/dsnet).
    """
    if norm == "L2":
        return 2.5 * eps / 20
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
    counts: Counts = "last",
    seed: int = 0,
) -> dict[str, Attack]:
    """Returns the paper's attacks (Sec. 4.1) by name.

    Args:
        names: Some of ``fgsm`` (one step of eps), ``pgd`` (20 steps), ``cw`` (margin loss,
            confidence 50, 30 steps), ``aa`` (AutoAttack, standard) and single parts of AutoAttack:
            ``apgd-ce``, ``apgd-dlr``, ``apgd-t``, ``fab-t``, ``square``, and ``apgd-ce+square``
            for two or three classes. Under L2 all but ``fgsm`` and ``cw``.
        eps: Radius; L∞ in pixel scale [0, 1].
        norm: ``Linf`` or ``L2``.
        recipe: The authors' FGSM starts at random, the paper's at the image; for the steps see
            :func:`standard_step`.
        method: How the network was trained.
        step_size: Step of ``pgd`` and ``cw``; by default the recipe's.
        restarts: Runs of ``pgd`` and ``cw``; an image survives if it survives all.
        counts: Whether the ``last`` or ``any`` iterate of ``pgd`` and ``cw`` counts.
        seed: Seed of AutoAttack.

    Raises:
        ValueError: If a name is unknown, or not there under the norm, or a value out of range.
    """
    if step_size is None:
        step_size = standard_step(eps, norm=norm, recipe=recipe, method=method)
    iterated: dict[str, Any] = {"step_size": step_size, "restarts": restarts, "counts": counts}
    auto = partial(AutoAttack, eps, norm=norm, seed=seed)
    attacks: dict[str, Callable[[], Attack]] = {
        "fgsm": partial(FGSM, eps, random_start=recipe == "authors"),
        "pgd": partial(PGD_BY_NORM[norm], eps, steps=20, **iterated),
        "cw": partial(MarginPGD, eps, steps=30, confidence=50.0, **iterated),
        "aa": auto,
        FEW_CLASSES: partial(auto, attacks=tuple(FEW_CLASSES.split("+"))),
        **{part: partial(auto, attacks=(part,)) for part in AUTOATTACK_PARTS},
    }
    if norm == "L2":
        del attacks["fgsm"], attacks["cw"]
    for name in names:
        if name not in attacks:
            under = " under L2" if norm == "L2" else ""
            raise ValueError(f"attack must be one of {', '.join(attacks)}{under}, got {name!r}")
    return {name: attacks[name]() for name in names}


def check_attacks(attacks: Iterable[object], num_classes: int, image_shape: Sequence[int]) -> None:
    """Raises a ValueError if an attack cannot work with so few classes or so small images.

    Args:
        attacks: What is to be run.
        num_classes: Number of classes.
        image_shape: Channels, height and width.
    """
    for attack in attacks:
        if isinstance(attack, AutoAttack):
            attack.check_data(num_classes, image_shape)
