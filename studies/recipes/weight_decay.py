"""How much weight decay? (Tab. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nasbench_at.config import RunConfig, resolve
from studies.config import StudyConfig
from studies.variants import with_seeds

__all__ = ["weight_decay"]

WEIGHT_DECAYS = (3e-4, 4e-4, 5e-4, 6e-4, 7e-4)
"""Those of the paper's Tab. 6."""


def weight_decay(
    base: RunConfig,
    *,
    seeds: Sequence[int] = (0,),
    values: tuple[float, ...] = WEIGHT_DECAYS,
) -> StudyConfig:
    """Trains with each of several weight decays of the blocks.

    Five runs a seed; the paper's table looks like one seed.

    Args:
        base: The run.
        seeds: Train each with each of these.
        values: The weight decays.

    Raises:
        ValueError: If a value is negative.
    """
    runs = [
        planned
        for value in values
        for planned in with_seeds({"weight_decay": value}, replace(base, weight_decay=value), seeds)
    ]
    return StudyConfig("weight-decay", "weight-decay", resolve(base), tuple(runs))
