"""Learning rates."""

from __future__ import annotations

from collections.abc import Sequence

from nasbench_at.config import ResolvedConfig

__all__ = ["cyclic_rate", "learning_rate", "milestone_rate"]


def learning_rate(config: ResolvedConfig, epoch: int, step: int, num_steps: int) -> float:
    """Returns the learning rate of a step.

    Args:
        config: Schedule, highest rate, milestones, warm-up.
        epoch: Counted from 1.
        step: Counted from 0 within the epoch.
        num_steps: Steps in an epoch.
    """
    if config.lr_schedule == "cyclic":
        return cyclic_rate((epoch - 1) * num_steps + step, config.epochs * num_steps, config.lr)
    if epoch <= config.warmup_epochs:
        return config.lr * epoch / config.warmup_epochs
    return milestone_rate(epoch, config.lr, config.milestones, config.milestone_factors)


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


def cyclic_rate(step: int, total_steps: int, lr: float) -> float:
    """Returns the rate of a triangle 0, ``lr``, 0 over all steps.

    The first step already moves: the rate is taken at the step's end.

    Reference:
        Wong et al., "Fast is better than free", ICLR 2020.
    """
    share = (step + 1) / (total_steps + 1)
    return lr * (1 - abs(2 * share - 1))
