"""Learning rates by epoch."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["milestone_rate"]


def milestone_rate(
    epoch: int, lr: float, milestones: Sequence[int], factors: Sequence[float]
) -> float:
    """Returns the learning rate of an epoch under a step schedule.

    Args:
        epoch: Counted from 1.
        lr: Initial learning rate.
        milestones: First epoch of each reduced rate, in order.
        factors: What the initial rate is multiplied by from that epoch on.

    Returns:
        ``lr`` times the factor of the last milestone reached, or ``lr``.
    """
    rate = lr
    for milestone, factor in zip(milestones, factors, strict=True):
        if epoch >= milestone:
            rate = lr * factor
    return rate
