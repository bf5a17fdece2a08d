"""Searches replayed on recorded runs: how fast would each sampler have found the best network?

A trial is looked up instead of trained, so that samplers and pruners can be compared over hundreds
of searches in minutes.
"""

from __future__ import annotations

from studies.replay.drawing import draw_regret
from studies.replay.regret import EVERY_NETWORK, SHARES, regret_by_cost
from studies.replay.search import (
    PRUNERS,
    SAMPLERS,
    PrunerFactory,
    SamplerFactory,
    SearchPath,
    TabularTraining,
    run_search,
)
from studies.replay.table import RecordedRun, TabularObjective

__all__ = [
    "EVERY_NETWORK",
    "PRUNERS",
    "SAMPLERS",
    "SHARES",
    "PrunerFactory",
    "RecordedRun",
    "SamplerFactory",
    "SearchPath",
    "TabularObjective",
    "TabularTraining",
    "draw_regret",
    "regret_by_cost",
    "run_search",
]
