"""One search replayed: what it would have found, and when, had it trained its networks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from studies.replay.table import RecordedRun, TabularObjective

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "PrunerFactory",
    "SamplerFactory",
    "SearchPath",
    "TabularTraining",
    "draw_runs",
    "run_search",
]

MAX_IDLE = 30
"""Trials in a row that cost nothing, after which a search is taken to have nothing more to ask."""


class SamplerFactory(Protocol):
    """Makes a sampler from a seed; the samplers' classes themselves do."""

    def __call__(self, *, seed: int) -> optuna.samplers.BaseSampler:
        """Returns a new sampler."""


class PrunerFactory(Protocol):
    """Makes a pruner for trainings of at most so many epochs."""

    def __call__(self, num_epochs: int, /) -> optuna.pruners.BasePruner:
        """Returns a new pruner."""


SAMPLERS: dict[str, SamplerFactory] = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "qmc": optuna.samplers.QMCSampler,
    "brute": optuna.samplers.BruteForceSampler,
}
"""Optuna's samplers, with its settings; ``brute`` tries every combination in a random order."""


def _no_pruner(num_epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.NopPruner()


def _hyperband(num_epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=num_epochs)


def _successive_halving(num_epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1)


def _median(num_epochs: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.MedianPruner()


PRUNERS: dict[str, PrunerFactory] = {
    "none": _no_pruner,
    "hyperband": _hyperband,
    "sha": _successive_halving,
    "median": _median,
}
"""Optuna's pruners, with its settings and one epoch as the least."""


def draw_runs(runs: Sequence[Sequence[RecordedRun]], seed: int) -> list[RecordedRun]:
    """Returns one run of each combination, all of its seeds equally likely."""
    generator = np.random.default_rng(seed)
    return [known[int(generator.integers(len(known)))] for known in runs]


class TabularTraining:
    """An Optuna objective that replays a recorded run, epoch by epoch, and adds up what it costs.

    A combination stands for one of its runs, drawn at random once: a search that trains for real
    sees one seed of each network too, on the validation images. The same combination again costs
    nothing; one that was pruned goes on from where it stopped.

    Args:
        objective: The table.
        runs: The runs of each of its combinations.
        seed: Which runs are drawn.

    Attributes:
        seed: The same.
        seconds: What the training so far has cost.
        latest: The combination that was asked for last; None if it is not in the table.
    """

    def __init__(
        self, objective: TabularObjective, runs: Sequence[Sequence[RecordedRun]], seed: int
    ) -> None:
        self._objective = objective
        self.seed = seed
        self._runs = draw_runs(runs, seed)
        self._epochs_done = [0] * len(runs)
        self.seconds = 0.0
        self.latest: int | None = None

    def __call__(self, trial: optuna.trial.Trial) -> float:
        """Returns the validation accuracy that the run kept, in [0, 1].

        Raises:
            optuna.TrialPruned: If the pruner says so, or there is no run of the combination.
        """
        self.latest = None
        self.latest = number = self._objective.find(trial)
        run = self._runs[number]
        for epoch, accuracy in enumerate(run.validation, start=1):
            if epoch > self._epochs_done[number]:
                self._epochs_done[number] = epoch
                self.seconds += run.seconds_an_epoch
            trial.report(accuracy, epoch)
            if epoch < len(run.validation) and trial.should_prune():
                raise optuna.TrialPruned(f"stopped after epoch {epoch}")
        return run.told


@dataclass
class SearchPath:
    """What a search would choose after each of its trials.

    Attributes:
        seconds: Cost of all trainings so far, (num_trials,).
        chosen: The combination of the highest validation accuracy among the trials that ran to
            their end, (num_trials,); -1 before there is one.
    """

    seconds: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the combination chosen when so much was spent, -1 for none; (num_points,)."""
        trials = np.searchsorted(np.array(self.seconds), seconds * (1 + 1e-9), side="right")
        return np.array([-1, *self.chosen])[trials]


def run_search(
    training: TabularTraining,
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    max_seconds: float,
) -> SearchPath:
    """Searches in memory until so much is spent, or the sampler asks only for what is known.

    Args:
        training: What is searched; its costs add up.
        sampler: Chooses the trials.
        pruner: Stops them.
        max_seconds: What may be spent.
    """
    path = SearchPath()
    watch = functools.partial(_watch, training=training, path=path, max_seconds=max_seconds)
    with _quiet():
        # Hyperband draws a trial's bracket by the study's name, which is random if it has none.
        study = optuna.create_study(
            direction="maximize",
            sampler=sampler,
            pruner=pruner,
            study_name=f"replay-{training.seed}",
        )
        study.optimize(training, callbacks=[watch])
    return path


def _watch(
    study: optuna.Study,
    trial: optuna.trial.FrozenTrial,
    *,
    training: TabularTraining,
    path: SearchPath,
    max_seconds: float,
) -> None:
    is_best = trial.state.name == "COMPLETE" and study.best_trial.number == trial.number
    before = path.chosen[-1] if path.chosen else -1
    path.chosen.append(training.latest if is_best and training.latest is not None else before)
    path.seconds.append(training.seconds)
    is_idle = len(path.seconds) > MAX_IDLE and path.seconds[-1 - MAX_IDLE] == training.seconds
    if training.seconds >= max_seconds or is_idle:
        study.stop()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from a line on stderr for each of hundreds of studies."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.ERROR))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
