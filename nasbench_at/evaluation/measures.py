"""What is to be run, from the options that ask for it."""

from __future__ import annotations

from nasbench_at.attacks import Counts
from nasbench_at.config.architecture import Recipe
from nasbench_at.config.run_config import NormName
from nasbench_at.evaluation.corruptions import CorruptionSuite
from nasbench_at.evaluation.options import CORRUPTIONS, EvaluationOptions
from nasbench_at.evaluation.robustness import Measure
from nasbench_at.evaluation.smoothing import CertifiedAccuracy, Smoothing
from nasbench_at.evaluation.standard_attacks import standard_attacks

__all__ = ["measures_by_eps"]


def measures_by_eps(options: EvaluationOptions, method: str) -> dict[float, dict[str, Measure]]:
    """Returns by radius what is to be run; corruptions, which have none, with the first of them.

    Args:
        options: What was asked for; what is unset is the paper's.
        method: How the network was trained, on which steps depend.

    Raises:
        ValueError: If an attack is not there under the norm, or a value is out of range.
    """
    recipe: Recipe = options.recipe or "paper"
    counts: Counts = options.counts or "last"
    norm: NormName = options.norm or "Linf"
    others = [name for name in options.attack_names if _is_corruption(name) or name == "smooth"]
    found: dict[float, dict[str, Measure]] = {
        eps: {
            **standard_attacks(
                [name for name in options.attack_names if name not in others],
                eps=eps,
                norm=norm,
                recipe=recipe,
                method=method,
                step_size=options.step_size,
                restarts=options.restarts,
                counts=counts,
                seed=options.seed,
            ),
        }
        for eps in options.eps
    }
    has_mean = "corruptions" in others
    asked = tuple(name for name in CORRUPTIONS if has_mean or f"corrupt-{name}" in others)
    if asked:
        first = next(iter(found.values()))
        first["corruptions"] = CorruptionSuite(asked, options.severities, has_mean=has_mean)
    if "smooth" in others:
        if norm != "L2":
            raise ValueError(
                f"attack 'smooth' certifies under norm L2, got {norm}; add --norm L2 and --eps"
            )
        smoothing = Smoothing(
            options.smooth_sigma, options.smooth_n0, options.smooth_n, options.smooth_alpha
        )
        for eps, measures in found.items():
            measures["smooth"] = CertifiedAccuracy(eps, smoothing, options.smooth_samples)
    return found


def _is_corruption(name: str) -> bool:
    return name.startswith("corrupt")
