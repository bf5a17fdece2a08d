"""Attacks: images in [0, 1], a model from images to logits, and a budget; adversarial images out.

Every attack is an object with `name`, `settings()` and a call
`attack(model, x, y, generator=...) -> x_adv`. None of them changes the model or the global random
state. `norms` holds the threat models, `objectives` what is maximised, `gradient` the one loop,
`pgd` the attacks by their names in papers, `autoattack` the ensemble of `auto_pgd`, `fab` and
`square`, `guard` how a model is lent out, `folding` and `fusion` how it is made faster meanwhile,
and `trust_checks` the signs that a result cannot be trusted.
"""

from __future__ import annotations

from .autoattack import AutoAttack, AutoAttackResult
from .gradient import Counts, GradientAttack, input_gradient
from .guard import attack_mode
from .inputs import check_inputs
from .norms import L2, LINF, Norm
from .objectives import (
    KLObjective,
    Objective,
    cross_entropy_objective,
    margin_loss,
    margin_objective,
)
from .pgd import FGSM, L2PGD, PGD_BY_NORM, LinfPGD, MarginPGD
from .protocol import Attack
from .trust_checks import CheckResult, run_checks

__all__ = [
    "FGSM",
    "L2",
    "L2PGD",
    "LINF",
    "PGD_BY_NORM",
    "Attack",
    "AutoAttack",
    "AutoAttackResult",
    "CheckResult",
    "Counts",
    "GradientAttack",
    "KLObjective",
    "LinfPGD",
    "MarginPGD",
    "Norm",
    "Objective",
    "attack_mode",
    "check_inputs",
    "cross_entropy_objective",
    "input_gradient",
    "margin_loss",
    "margin_objective",
    "run_checks",
]
