"""What the paper's theory says of one trained network: constants, bounds, and which claims hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.block_smoothness import compute_run_block_smoothness
from analysis.claims.claim import Claim
from analysis.convergence import compute_run_convergence_bound
from analysis.curvature import compute_run_curvature
from analysis.gradient_variance import compute_run_gradient_variance
from analysis.lipschitz import compute_run_lipschitz
from nasbench_at.evaluation.runs import Run

__all__ = ["RunTheory", "compute_run_theory"]


@dataclass(frozen=True)
class RunTheory:
    """A run held against Lemma 3.2, Prop. 3.3, Thm. 3.4 and Thm. 3.5.

    Attributes:
        run_id: The run.
        constants: What was measured, by name, in words.
        claims: What the paper says and whether it holds here.
        left_out: What could not be evaluated, and why.
    """

    run_id: str
    constants: Mapping[str, str]
    claims: tuple[Claim, ...]
    left_out: tuple[str, ...]


def compute_run_theory(
    run: Run,
    *,
    num_images: int = 64,
    num_batches: int = 10,
    seed: int = 0,
) -> RunTheory:
    """Evaluates the paper's theory for a run's selected network; losses are natural ones.

    Args:
        run: The run.
        num_images: Images of constants and curvature.
        num_batches: Batches of the gradient's variance, drawn from all training images.
        seed: Seed of all that is random.

    Raises:
        ValueError: If the run's weights or data are not usable.
    """
    theory = _Theory(run, num_images=num_images, num_batches=num_batches, seed=seed)
    left_out = []
    for part in (
        theory.measure_lipschitz,
        theory.measure_loss,
        theory.judge_convergence,
        theory.judge_smoothness,
    ):
        try:
            part()
        except ValueError as error:  # such as a block whose bound nobody has worked out
            left_out.append(str(error))
    return RunTheory(
        run.config.run_id, theory.constants, tuple(theory.claims), tuple(dict.fromkeys(left_out))
    )


class _Theory:
    """Collects constants and claims part by part."""

    def __init__(self, run: Run, *, num_images: int, num_batches: int, seed: int) -> None:
        self.run = run
        self.num_images = num_images
        self.seed = seed
        self.batches: dict[str, Any] = {
            "loss": "natural",
            "num_images": num_images,
            "num_batches": num_batches,
            "seed": seed,
        }
        self.constants: dict[str, str] = {}
        self.claims: list[Claim] = []

    def measure_lipschitz(self) -> None:
        found = compute_run_lipschitz(self.run, num_images=self.num_images, seed=self.seed)
        where = "everywhere" if found.is_global else "for inputs like these images"
        self.constants["Lipschitz bound (L2)"] = f"10^{found.bound_log10:.1f}, {where}"
        self.constants["Largest local constant (L2)"] = f"{found.local:.3g}"
        self.claims += found.claims()

    def measure_loss(self) -> None:
        curvature = compute_run_curvature(
            self.run, loss="natural", num_images=self.num_images, seed=self.seed
        )
        self.constants["Largest eigenvalue of the Hessian"] = f"{curvature.top_eigenvalue:.4g}"
        self.constants["Norm of the loss's gradient"] = f"{curvature.gradient_norm:.3g}"
        variance = compute_run_gradient_variance(
            self.run,
            loss="natural",
            num_batches=self.batches["num_batches"],
            seed=self.seed,
        )
        name = "Gradient variance of the last layer"
        self.constants[name] = f"{variance.variance:.3g}"

    def judge_convergence(self) -> None:
        self.claims += compute_run_convergence_bound(self.run, **self.batches).claims()

    def judge_smoothness(self) -> None:
        self.claims += compute_run_block_smoothness(self.run, **self.batches).claims()
