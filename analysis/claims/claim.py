"""A statement of the paper, and whether it holds for what was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Claim", "Verdict", "verdict_of"]

Verdict: TypeAlias = Literal["holds here", "does not hold here", "cannot be told"]


@dataclass(frozen=True)
class Claim:
    """What the paper says, and whether it is so here.

    Attributes:
        source: Where the paper says it, such as ``Prop. 3.3``.
        statement: What it says, in its symbols.
        verdict: Whether the measured numbers agree.
        explanation: The numbers, and which assumptions they meet or break; or what is missing.
    """

    source: str
    statement: str
    verdict: Verdict
    explanation: str


def verdict_of(holds: bool) -> Verdict:
    """Returns the verdict of a test that leaves nothing open."""
    return "holds here" if holds else "does not hold here"
