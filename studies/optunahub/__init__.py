"""A table of adversarially trained networks as a problem of OptunaHub's.

OptunaHub itself need not be installed: where it is, :class:`Problem` is one of its problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from nasbench_at.records import Benchmark
from studies.replay import TabularObjective

if TYPE_CHECKING:
    BaseProblem = object
else:
    try:
        from optunahub.benchmarks import BaseProblem
    except ImportError:
        BaseProblem = object

__all__ = ["Problem"]


class Problem(BaseProblem):
    """Which set of atomic blocks becomes the most robust? Looked up instead of trained.

    To be maximised: the share of test images right under an attack, in [0, 1].

    Args:
        table: A table that comes with the package, or a file or folder of runs.
        attack: Whose accuracy is the objective.
        space: Keys of the configuration to search over; ``blocks`` is a boolean a block.
        seed: None for the mean over the recorded seeds; else an evaluation is one of them, drawn at
            random by this seed, as noisy as training is.

    Raises:
        ValueError: As :class:`studies.replay.TabularObjective`.
    """

    def __init__(
        self,
        table: str = "digits",
        attack: str = "pgd",
        space: Sequence[str] = ("blocks",),
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._objective = TabularObjective(Benchmark.load(table), space, attack)
        self._generator = None if seed is None else np.random.default_rng(seed)

    @property
    def search_space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The parameters, categorical all of them."""
        return {**self._objective.search_space}

    @property
    def directions(self) -> list[optuna.study.StudyDirection]:
        """One objective, to be maximised."""
        return [optuna.study.StudyDirection.MAXIMIZE]

    def evaluate(self, params: Mapping[str, Any]) -> float:
        """Returns a combination's accuracy, in [0, 1].

        Args:
            params: A value for each parameter.

        Raises:
            optuna.TrialPruned: If there is no run of it, such as of no block at all.
        """
        number = self._objective.look_up(params)
        if self._generator is None:
            return self._objective.accuracies[number]
        return float(self._generator.choice(self._objective.accuracies_by_seed[number]))

    def __call__(self, trial: optuna.Trial) -> float:
        """Returns the accuracy of what a trial chooses."""
        params = {
            name: trial.suggest_categorical(name, distribution.choices)
            for name, distribution in self._objective.search_space.items()
        }
        return self.evaluate(params)
