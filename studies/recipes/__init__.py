"""Recipes: questions about block spaces as studies, with the paper's settings as defaults.

A recipe is a function from a run to a :class:`studies.StudyConfig`; its keyword arguments are the
flags of ``nasbench-at study run RECIPE``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nasbench_at.config.suggestions import suggest
from studies.config import StudyConfig
from studies.recipes.block_ensemble import block_ensemble
from studies.recipes.block_space import block_space
from studies.recipes.initialization import initialization
from studies.recipes.methods import methods
from studies.recipes.misalignment import misalignment
from studies.recipes.nasbench_at_digits import nasbench_at_digits
from studies.recipes.pruning import pruning
from studies.recipes.reliability import reliability
from studies.recipes.search import search
from studies.recipes.weight_decay import weight_decay

__all__ = [
    "RECIPES",
    "block_ensemble",
    "block_space",
    "find_recipe",
    "initialization",
    "methods",
    "misalignment",
    "nasbench_at_digits",
    "pruning",
    "reliability",
    "search",
    "weight_decay",
]

RECIPES: Mapping[str, Callable[..., StudyConfig]] = {
    "block-space": block_space,
    "block-ensemble": block_ensemble,
    "initialization": initialization,
    "weight-decay": weight_decay,
    "pruning": pruning,
    "methods": methods,
    "misalignment": misalignment,
    "reliability": reliability,
    "nasbench-at-digits": nasbench_at_digits,
    "search": search,
}
"""What ``nasbench-at study run`` trains, by name."""


def find_recipe(name: str) -> Callable[..., StudyConfig]:
    """Returns a recipe by its name, with hyphens or underscores.

    Raises:
        ValueError: If there is none; the message names near ones.
    """
    key = name.replace("_", "-")
    if key not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; {suggest(key, RECIPES)}")
    return RECIPES[key]
