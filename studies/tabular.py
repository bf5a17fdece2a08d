"""Searches replayed on recorded runs: how fast would each sampler have found the best network?

A trial looks a configuration up instead of training it, as in the tabular benchmarks of
architecture search (Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search",
ICML 2019, Sec. 4), so that samplers can be compared over a hundred seeds in minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import CategoricalChoiceType, CategoricalDistribution

from nasbench_at.config.architecture import architecture_of
from nasbench_at.records import Record, conditions_of, differences, mean_interval

__all__ = ["SamplerFactory", "TabularObjective", "regret_curves", "replay"]

_Choices = tuple[CategoricalChoiceType, ...]


class SamplerFactory(Protocol):
    """Makes a sampler from a seed; the samplers' classes themselves do."""

    def __call__(self, *, seed: int) -> optuna.samplers.BaseSampler:
        """Returns a new sampler."""


class TabularObjective:
    """An Optuna objective that looks accuracies up, to be maximised.

    A parameter is a key of the configuration, categorical over the values that occur; those that
    are no number, text or None are JSON text. Block sets are a boolean a block, such as
    ``blocks.dense``. Of several runs of one combination, which differ in their seeds, the mean
    counts.

    Args:
        records: The runs; those that were not evaluated by ``metric`` are left out.
        space: Keys of the configuration to search over.
        metric: Name of an attack's row, such as ``natural``, ``pgd`` or ``aa``.

    Raises:
        ValueError: If no run was evaluated by ``metric``, the runs were evaluated on different
            images or at different radii, a key is unknown, or runs of one combination differ in
            more than their seeds.

    Attributes:
        search_space: The parameters, in order.
        best: The highest accuracy in the table.
        worst: The lowest.
    """

    def __init__(self, records: Sequence[Record], space: Sequence[str], metric: str) -> None:
        evaluated = [record for record in records if record.was_evaluated_by(metric)]
        if not evaluated:
            raise ValueError(f"none of {len(records)} records was evaluated by {metric!r}")
        configs = [_in_canonical_order(record.config) for record in evaluated]
        _require_one_threat(evaluated, metric)
        _check_space(space, configs)
        points = [_parameters_of(config, space) for config in configs]
        _require_one_configuration(evaluated, configs, points, space)
        self.search_space = _search_space_of(points)
        accuracies: dict[_Choices, list[float]] = {}
        for record, point in zip(evaluated, points, strict=True):
            accuracies.setdefault(self._key(point), []).append(record.accuracy(metric))
        self._table = {key: fmean(values) for key, values in accuracies.items()}
        self.best, self.worst = max(self._table.values()), min(self._table.values())

    def _key(self, point: Mapping[str, CategoricalChoiceType]) -> _Choices:
        """A block that a run does not have is False, whether or not the run knows of it."""
        return tuple(point.get(name, False) for name in self.search_space)

    def __len__(self) -> int:
        """Number of combinations in the table."""
        return len(self._table)

    def __call__(self, trial: optuna.trial.BaseTrial) -> float:
        """Returns the mean accuracy of a trial's combination, in [0, 1].

        Raises:
            optuna.TrialPruned: If there is no run of it.
        """
        key = tuple(
            trial.suggest_categorical(name, distribution.choices)
            for name, distribution in self.search_space.items()
        )
        if key not in self._table:
            raise optuna.TrialPruned("there is no record of this combination")
        return self._table[key]


def replay(
    objective: Callable[[optuna.trial.Trial], float],
    sampler: SamplerFactory,
    num_trials: int,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Runs a study in memory and returns what its trials found.

    Args:
        objective: Such as a :class:`TabularObjective`; is maximised.
        sampler: Makes the sampler from the seed, such as ``optuna.samplers.TPESampler``.
        num_trials: Number of trials, at least 1.
        seed: Seed of the sampler.

    Returns:
        Values, shape ``(num_trials,)``; NaN for a pruned trial, and for those that a sampler which
        has gone through its whole grid leaves out.

    Raises:
        ValueError: If ``num_trials`` is below 1, or the sampler is one that has been made already.
    """
    _check_replay([sampler], num_trials)
    with _quiet():
        study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed))
        study.optimize(objective, n_trials=num_trials)
    values = np.full(num_trials, np.nan)
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.COMPLETE:
            values[trial.number] = trial.value
    return values


def regret_curves(
    objective: TabularObjective,
    samplers: Mapping[str, SamplerFactory],
    num_trials: int,
    seeds: Iterable[int] = range(100),
) -> pd.DataFrame:
    """Compares samplers by what is missing from the best accuracy of the table, trial by trial.

    Args:
        objective: The table.
        samplers: Makes each sampler from a seed, such as ``{"tpe": optuna.samplers.TPESampler}``.
        num_trials: Trials of each study, at least 1.
        seeds: A study each.

    Returns:
        A row a sampler and trial: ``sampler``, ``trial`` (from 1), ``regret`` (the mean over seeds
        of the table's best accuracy minus the best so far, in [0, 1]), ``low`` and ``high`` (the
        95 % interval of that mean by Student's t distribution; NaN for one seed) and ``seeds``
        (their number). As long as a study has found no recorded combination, its best so far is
        the table's worst.

    Raises:
        ValueError: If there is no sampler or no seed, or as :func:`replay`.
    """
    chosen = tuple(seeds)
    if not samplers or not chosen:
        raise ValueError(
            f"there must be a sampler and a seed, got {len(samplers)} samplers and {len(chosen)} "
            "seeds"
        )
    _check_replay(samplers.values(), num_trials)
    frames = []
    for name, sampler in samplers.items():
        values = np.stack([replay(objective, sampler, num_trials, seed) for seed in chosen])
        found = np.nan_to_num(values, nan=objective.worst)
        regrets = objective.best - np.maximum.accumulate(found, axis=1)
        low, high = mean_interval(regrets)
        frame = pd.DataFrame({"trial": range(1, num_trials + 1), "regret": regrets.mean(axis=0)})
        frames.append(frame.assign(sampler=name, low=low, high=high, seeds=len(chosen)))
    columns = ["sampler", "trial", "regret", "low", "high", "seeds"]
    return pd.concat(frames, ignore_index=True)[columns]


def _check_replay(samplers: Iterable[SamplerFactory], num_trials: int) -> None:
    if num_trials < 1:
        raise ValueError(f"num_trials must be at least 1, got {num_trials}")
    for sampler in samplers:
        if isinstance(sampler, optuna.samplers.BaseSampler):
            name = type(sampler).__name__
            raise ValueError(
                f"a sampler must be made from a seed: give the class {name}, or a function of "
                "seed, got an object of it"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from a line on stderr for each of hundreds of studies."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _require_one_threat(records: Sequence[Record], metric: str) -> None:
    first, *others = dict.fromkeys(conditions_of(record.results[metric]) for record in records)
    for other in others:
        raise ValueError(
            f"the runs must be evaluated by {metric!r} under the same conditions; they differ in "
            + ", ".join(differences(first, other))
        )


def _in_canonical_order(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with the columns of a DS-Net's modules as its architecture has them."""
    network = architecture_of(config)
    if network is None:
        return config
    spec = network.attention
    columns = {"attention_weights": spec.weights, "attention_keep": spec.keep}
    return {**config, "blocks": network.blocks, **columns}


def _check_space(space: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    if isinstance(space, str) or not space:
        raise ValueError(f"space must be keys of the configuration, at least one, got {space!r}")
    known = sorted(set(configs[0]).intersection(*configs) - {"seed"})
    for key in space:
        if key == "seed":
            raise ValueError("space must not have the key 'seed', over which the mean is taken")
        if key not in known:
            raise ValueError(f"space has the unknown key {key!r}; all records have: {known}")


def _parameters_of(
    config: Mapping[str, Any], space: Sequence[str]
) -> dict[str, CategoricalChoiceType]:
    """Returns a configuration's parameters; of its blocks only those that it has."""
    point: dict[str, CategoricalChoiceType] = {}
    for key in space:
        value = config[key]
        if key == "blocks":
            point |= {f"blocks.{name}": True for name in _block_set(value)}
        elif value is None or isinstance(value, bool | int | float | str):
            point[key] = value
        else:
            point[key] = json.dumps(value, sort_keys=True)
    return point


def _block_set(blocks: Sequence[Any]) -> Sequence[str]:
    names, *others = dict.fromkeys(blocks)
    if others or len(set(names)) < len(names):
        raise ValueError(
            "to search over blocks, all modules must have the same set without repetition, got "
            f"{blocks}"
        )
    return tuple(names)


def _require_one_configuration(
    records: Sequence[Record],
    configs: Sequence[Mapping[str, Any]],
    points: Sequence[Mapping[str, Any]],
    space: Sequence[str],
) -> None:
    """Holds that the mean is taken over seeds alone."""
    first: dict[str, tuple[Record, Mapping[str, Any]]] = {}
    for record, config, point in zip(records, configs, points, strict=True):
        combination = json.dumps(point, sort_keys=True)
        other, known = first.setdefault(combination, (record, config))
        for key in sorted((config.keys() | known.keys()) - {"seed", *space}):
            if config.get(key) != known.get(key):
                raise ValueError(
                    f"runs {other.run_id!r} and {record.run_id!r} have the same {', '.join(space)} "
                    f"but differ in {key} ({known.get(key)!r} and {config.get(key)!r}); add it to "
                    "the space, or query for one of them"
                )


def _search_space_of(
    points: Sequence[Mapping[str, CategoricalChoiceType]],
) -> dict[str, CategoricalDistribution]:
    names = dict.fromkeys(name for point in points for name in point)
    blocks = sorted(name for name in names if name.startswith("blocks."))
    values = {
        name: {point[name] for point in points} for name in names if not name.startswith("blocks.")
    }
    # In an order that does not depend on the records', so that a seed means the same search.
    space = {
        name: CategoricalDistribution(sorted(found, key=_order)) for name, found in values.items()
    }
    return space | {name: CategoricalDistribution((False, True)) for name in blocks}


def _order(value: CategoricalChoiceType) -> tuple[bool, float, str]:
    """Numbers by size, then the others by their text."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, repr(value)
