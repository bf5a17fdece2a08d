"""The gradient attacks that papers name: FGSM, PGD, and PGD on the margin ("C&W").

All are frozen dataclasses: `dataclasses.replace(attack, steps=200)` is the same attack with more
steps. It keeps the step size, also one that came from the radius.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from .gradient import GradientAttack, Start
from .norms import L2, LINF
from .objectives import Objective, margin_objective

__all__ = ["FGSM", "L2PGD", "PGD_BY_NORM", "LinfPGD", "MarginPGD"]


@dataclass(frozen=True)
class LinfPGD(GradientAttack):
    """Projected gradient ascent on the cross-entropy in an L-infinity ball."""

    norm = LINF
    name = "pgd"


@dataclass(frozen=True)
class L2PGD(GradientAttack):
    """Projected gradient ascent on the cross-entropy in an L2 ball, with normalised gradients.

    `eps` and `step_size` are Euclidean lengths over all pixels of an image in [0, 1].
    """

    norm = L2
    name = "pgd_l2"


PGD_BY_NORM: Mapping[str, type[LinfPGD] | type[L2PGD]] = {"Linf": LinfPGD, "L2": L2PGD}
"""PGD under each threat model, by the names that configurations have for these."""


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length `eps` along the sign of the gradient.

    Attributes:
        random_start: Start uniformly in the ball, as the authors' evaluation does, instead of at
            the image; the step is then projected back into the ball.

    Reference:
        Goodfellow et al. 2015.
    """

    norm = LINF
    name = "fgsm"
    steps: int = 1
    random_start: bool = False
    start: Start = field(init=False)

    def __post_init__(self) -> None:
        """Derives step and start."""
        if self.step_size is None:
            object.__setattr__(self, "step_size", self.eps)
        object.__setattr__(self, "start", "uniform" if self.random_start else "none")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class MarginPGD(GradientAttack):
    """Projected gradient ascent on the margin in an L-infinity ball.

    Papers on adversarial training call it C&W. It is not the minimum-norm attack of Carlini and
    Wagner: it borrows their loss alone.

    Attributes:
        confidence: The lead after which a wrong class is left alone.
    """

    norm = LINF
    name = "cw"
    steps: int = 30
    confidence: float = 50.0
    objective: Objective = field(init=False)

    def __post_init__(self) -> None:
        """Derives the objective."""
        margin = partial(margin_objective, confidence=self.confidence)
        object.__setattr__(self, "objective", margin)
        super().__post_init__()
