"""How cheaply can one know? Rankings that need little or no training, held against a table."""

from __future__ import annotations

from studies.proxies.agreement import (
    Agreement,
    Ceiling,
    correct_tau,
    measure_agreement,
    measure_ceiling,
)
from studies.proxies.comparison import ProxyComparison, compare_proxies
from studies.proxies.drawing import draw_proxies
from studies.proxies.one_shot import OneShot, train_one_shot
from studies.proxies.zero_cost import ZERO_COST, Score

__all__ = [
    "ZERO_COST",
    "Agreement",
    "Ceiling",
    "OneShot",
    "ProxyComparison",
    "Score",
    "compare_proxies",
    "correct_tau",
    "draw_proxies",
    "measure_agreement",
    "measure_ceiling",
    "train_one_shot",
]
