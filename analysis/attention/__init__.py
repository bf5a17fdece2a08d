"""The learned attention weights by module and block, Fig. 8 of the paper, and their course.

``reading`` gets them from runs' folders and tables, ``weights`` computes with them, ``drawing``
draws them.
"""

from __future__ import annotations

from analysis.attention.drawing import (
    draw_attention,
    draw_attention_distances,
    draw_attention_entropy,
    draw_attention_history,
)
from analysis.attention.reading import TableRun
from analysis.attention.weights import (
    AttentionHistory,
    AttentionWeights,
    attention_distances,
    attention_entropy,
    compute_attention,
    compute_attention_history,
)

__all__ = [
    "AttentionHistory",
    "AttentionWeights",
    "TableRun",
    "attention_distances",
    "attention_entropy",
    "compute_attention",
    "compute_attention_history",
    "draw_attention",
    "draw_attention_distances",
    "draw_attention_entropy",
    "draw_attention_history",
]
