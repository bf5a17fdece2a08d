"""What Lemma 3.2 and Proposition 3.3 say, held against the constants of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.claims.claim import Claim, verdict_of

__all__ = [
    "ConstantKind",
    "LipschitzProducts",
    "ModuleConstants",
    "compute_products",
    "judge_lemma",
    "judge_proposition",
]

ConstantKind: TypeAlias = Literal["bound", "local"]
Array: TypeAlias = NDArray[np.float64]
_SLACK = 1e-9
"""Differences of logarithms that rounding may make."""


@dataclass(frozen=True)
class ModuleConstants:
    """One robust module: the blocks that take part in it.

    Attributes:
        blocks: Their names, N of them.
        weights: Attention weights w_ij, shape ``(N,)``.
        bounds: Upper bounds of their Lipschitz constants L_ij, shape ``(N,)``.
        local: The largest local constants measured, shape ``(N,)``; none is above its bound.
    """

    blocks: tuple[str, ...]
    weights: Array
    bounds: Array
    local: Array

    def constants(self, kind: ConstantKind) -> Array:
        """Returns the bounds or the local constants."""
        return self.bounds if kind == "bound" else self.local


@dataclass(frozen=True)
class LipschitzProducts:
    """Decimal logarithms of the constants that the paper compares; deep networks' overflow.

    Attributes:
        ds_net: L_f = Π_i Σ_j w_ij L_ij, Eq. (10).
        sequence: Π_i Π_j L_ij: the same blocks one after the other.
        uniform: L_f with the weight 1/N for each of N blocks.
        smallest: The least that fixed weights give: all weight on each module's smallest L_ij.
    """

    ds_net: float
    sequence: float
    uniform: float
    smallest: float


def compute_products(modules: Sequence[ModuleConstants], kind: ConstantKind) -> LipschitzProducts:
    """Multiplies the constants of all modules, without stem, reductions and head.

    Raises:
        ValueError: If there is no module.
    """
    if not modules:
        raise ValueError("there must be at least one module, got none")

    def log_product(factors: Sequence[float]) -> float:
        with np.errstate(divide="ignore"):
            return float(np.sum(np.log10(factors)))

    constants = [module.constants(kind) for module in modules]
    return LipschitzProducts(
        ds_net=log_product(
            [float(m.weights @ row) for m, row in zip(modules, constants, strict=True)]
        ),
        sequence=log_product(np.concatenate(constants).tolist()),
        uniform=log_product([float(row.mean()) for row in constants]),
        smallest=log_product([float(row.min()) for row in constants]),
    )


def judge_lemma(bound_log10: float, local: float, num_images: int) -> Claim:
    """Holds Lemma 3.2's product against what was measured on the whole network.

    Args:
        bound_log10: log₁₀ of the product of all bounds, stem, reductions and head among them.
        local: Largest local constant of the network.
        num_images: Images it was sought at.
    """
    gap = bound_log10 - float(np.log10(local)) if local > 0 else np.inf
    return Claim(
        source="Lemma 3.2",
        statement="|f(x) - f(x + δ)| ≤ L_f ‖δ‖ with L_f = Π_i Σ_j w_ij L_ij",
        verdict=verdict_of(gap >= -_SLACK),
        explanation=(
            f"the largest local constant at {num_images} images is {local:.3g}, the product of "
            f"the bounds 10^{bound_log10:.2f}, which is 10^{gap:.2f} times as much; the product "
            "bounds the constant, and Eq. (10) calls it equal"
        ),
    )


def judge_proposition(modules: Sequence[ModuleConstants], kind: ConstantKind) -> tuple[Claim, ...]:
    """Holds Proposition 3.3 against a network: in sequence, uniform weights, any fixed weights.

    The proof needs constants of at least 1; where some are below, the comparison with the sequence
    may fail, and this says how many are. That learned weights give less than any fixed ones is an
    assumption of the proof (that training minimises L_f) and no consequence.
    """
    products = compute_products(modules, kind)
    constants = np.concatenate([module.constants(kind) for module in modules])
    num_below = int((constants < 1).sum())
    assumption = (
        f"all {constants.size} constants are at least 1, as the proof assumes"
        if num_below == 0
        else f"{num_below} of {constants.size} constants are below 1, where the proof does not "
        "apply"
    )
    what = "upper bounds" if kind == "bound" else "local constants"

    def compare(statement: str, other: float, rest: str) -> Claim:
        return Claim(
            source="Prop. 3.3",
            statement=statement,
            verdict=verdict_of(products.ds_net <= other + _SLACK),
            explanation=f"10^{products.ds_net:.2f} against 10^{other:.2f} from {what}; {rest}",
        )

    return (
        compare(
            "L_f is at most that of the same blocks in sequence", products.sequence, assumption
        ),
        compare(
            "L_f is at most that with fixed uniform weights",
            products.uniform,
            "the proof assumes that training minimises L_f over the weights",
        ),
        compare(
            "L_f is at most that with any fixed weights",
            products.smallest,
            "that is all weight on each module's smallest constant, which no weights undercut",
        ),
    )
