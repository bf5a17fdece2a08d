"""A statement of the paper, held against a trained network."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Claim"]


@dataclass(frozen=True)
class Claim:
    """What the paper says, and whether it is so for one network.

    Attributes:
        source: Where the paper says it, such as ``Prop. 3.3``.
        statement: What it says, in its symbols.
        holds: Whether the measured numbers agree.
        explanation: The numbers, and which assumptions they meet or break.
    """

    source: str
    statement: str
    holds: bool
    explanation: str
