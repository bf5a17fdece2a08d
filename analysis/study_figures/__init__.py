"""Figures of studies: Figs. 4 to 6 of the paper, fronts, learning curves, blocks, ranks.

A study's runs are ordinary runs, so each figure takes whichever records belong to it. Computing
(plain data out) stands apart from drawing (a figure out).
"""

from __future__ import annotations

from analysis.study_figures.block_ensemble import (
    BlockEnsemble,
    compute_block_ensemble,
    draw_block_ensemble,
)
from analysis.study_figures.block_space import BlockSpace, compute_block_space, draw_block_space
from analysis.study_figures.co_occurrence import (
    CoOccurrence,
    compute_co_occurrence,
    draw_co_occurrence,
)
from analysis.study_figures.estimates import Estimate
from analysis.study_figures.importance import (
    BlockImportance,
    compute_importance,
    draw_importance,
)
from analysis.study_figures.initialization import (
    Initialization,
    compute_initialization,
    draw_initialization,
)
from analysis.study_figures.learning_curves import (
    LearningCurve,
    compute_learning_curves,
    draw_learning_curves,
)
from analysis.study_figures.pareto import Pareto, compute_pareto, draw_pareto
from analysis.study_figures.rank_correlation import (
    RankCorrelation,
    compute_rank_correlation,
    draw_rank_correlation,
)
from analysis.study_figures.reliability import (
    ReliabilityCurve,
    compute_reliability,
    draw_reliability,
)

__all__ = [
    "BlockEnsemble",
    "BlockImportance",
    "BlockSpace",
    "CoOccurrence",
    "Estimate",
    "Initialization",
    "LearningCurve",
    "Pareto",
    "RankCorrelation",
    "ReliabilityCurve",
    "compute_block_ensemble",
    "compute_block_space",
    "compute_co_occurrence",
    "compute_importance",
    "compute_initialization",
    "compute_learning_curves",
    "compute_pareto",
    "compute_rank_correlation",
    "compute_reliability",
    "draw_block_ensemble",
    "draw_block_space",
    "draw_co_occurrence",
    "draw_importance",
    "draw_initialization",
    "draw_learning_curves",
    "draw_pareto",
    "draw_rank_correlation",
    "draw_reliability",
]
