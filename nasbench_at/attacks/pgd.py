"""The gradient attacks that papers name: FGSM, PGD, and PGD on the margin ("C&W")."""

from __future__ import annotations

from functools import partial

from .gradient import GradientAttack, Start, Verdict
from .guard import Mode
from .inputs import check_number
from .norms import L2, LINF
from .objectives import Objective, cross_entropy_objective, margin_objective


def _quarter(eps: float, step_size: float | None) -> float:
    """Return the step size, by default a quarter of the budget: 4 steps cross it."""
    check_number("eps", eps)
    return eps / 4 if step_size is None else step_size


class FGSM(GradientAttack):
    """One step of length `eps` along the sign of the gradient.

    Args:
        eps: L-infinity radius, in [0, 1].
        random_start: start uniformly in the ball, as the authors' evaluation does, instead of at
            the image; the step is then projected back into the ball.
        mode: the model's mode during the attack.

    Raises:
        ValueError: if a value is out of range.

    Reference:
        Goodfellow et al. 2015.
    """

    def __init__(self, eps: float, *, random_start: bool = False, mode: Mode = "eval") -> None:
        super().__init__(
            eps,
            norm=LINF,
            name="fgsm",
            step_size=eps,
            steps=1,
            start="uniform" if random_start else "none",
            mode=mode,
        )


class LinfPGD(GradientAttack):
    """Projected gradient ascent on the cross-entropy in an L-infinity ball.

    `step_size` is `eps` / 4 by default; the other arguments are those of `GradientAttack`.
    """

    def __init__(
        self,
        eps: float,
        *,
        step_size: float | None = None,
        steps: int = 10,
        start: Start = "uniform",
        noise: float = 0.0,
        restarts: int = 1,
        verdict: Verdict = "last",
        objective: Objective = cross_entropy_objective,
        mode: Mode = "eval",
    ) -> None:
        super().__init__(
            eps,
            norm=LINF,
            name="pgd",
            step_size=_quarter(eps, step_size),
            steps=steps,
            start=start,
            noise=noise,
            restarts=restarts,
            verdict=verdict,
            objective=objective,
            mode=mode,
        )


class L2PGD(GradientAttack):
    """Projected gradient ascent on the cross-entropy in an L2 ball, with normalised gradients.

    `eps` and `step_size` (`eps` / 4 by default) are Euclidean lengths over all pixels of an image
    in [0, 1]; the other arguments are those of `GradientAttack`.
    """

    def __init__(
        self,
        eps: float,
        *,
        step_size: float | None = None,
        steps: int = 10,
        start: Start = "uniform",
        noise: float = 0.0,
        restarts: int = 1,
        verdict: Verdict = "last",
        objective: Objective = cross_entropy_objective,
        mode: Mode = "eval",
    ) -> None:
        super().__init__(
            eps,
            norm=L2,
            name="pgd_l2",
            step_size=_quarter(eps, step_size),
            steps=steps,
            start=start,
            noise=noise,
            restarts=restarts,
            verdict=verdict,
            objective=objective,
            mode=mode,
        )


class MarginPGD(GradientAttack):
    """Projected gradient ascent on the margin in an L-infinity ball.

    Papers on adversarial training call it C&W. It is not the minimum-norm attack of Carlini and
    Wagner: it borrows their loss alone.

    `confidence` is the lead after which a wrong class is left alone, `step_size` is `eps` / 4 by
    default; the other arguments are those of `GradientAttack`.
    """

    def __init__(
        self,
        eps: float,
        *,
        step_size: float | None = None,
        steps: int = 30,
        start: Start = "uniform",
        noise: float = 0.0,
        restarts: int = 1,
        verdict: Verdict = "last",
        confidence: float = 50.0,
        mode: Mode = "eval",
    ) -> None:
        super().__init__(
            eps,
            norm=LINF,
            name="cw",
            step_size=_quarter(eps, step_size),
            steps=steps,
            start=start,
            noise=noise,
            restarts=restarts,
            verdict=verdict,
            objective=partial(margin_objective, confidence=confidence),
            mode=mode,
        )
