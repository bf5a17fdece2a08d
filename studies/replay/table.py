"""Recorded runs as an objective of Optuna's: a trial is looked up instead of trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import CategoricalChoiceType, CategoricalDistribution

from nasbench_at.config.architecture import architecture_of
from nasbench_at.records import Benchmark, Record, conditions_of, differences, mean_interval

__all__ = ["RecordedRun", "TabularObjective"]

_Choices = tuple[CategoricalChoiceType, ...]


@dataclass(frozen=True)
class RecordedRun:
    """What a search sees of a run while it is trained, and what it costs.

    Attributes:
        validation: Robust accuracy on the validation images after each epoch, in [0, 1].
        told: That of the weights which the run kept.
        seconds: How long its training took.
    """

    validation: tuple[float, ...]
    told: float
    seconds: float

    @property
    def seconds_an_epoch(self) -> float:
        """The training's time, shared equally among its epochs."""
        return self.seconds / len(self.validation)


class TabularObjective:
    """An Optuna objective that looks accuracies up, to be maximised.

    As in the tabular benchmarks of architecture search (Ying et al., "NAS-Bench-101: Towards
    Reproducible Neural Architecture Search", ICML 2019, Sec. 4).

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
        accuracies_by_seed: Accuracies of each combination's runs, in [0, 1].
        accuracies: Their means.
        best: The highest of these.
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
        self._records = records
        self._found: dict[_Choices, list[Record]] = {}
        for record, point in zip(evaluated, points, strict=True):
            self._found.setdefault(self._key(point), []).append(record)
        self._index = {key: number for number, key in enumerate(self._found)}
        self.accuracies_by_seed = tuple(
            tuple(record.accuracy(metric) for record in runs) for runs in self._found.values()
        )
        self.accuracies = tuple(map(fmean, self.accuracies_by_seed))
        self.best, self.worst = max(self.accuracies), min(self.accuracies)

    def _key(self, point: Mapping[str, CategoricalChoiceType]) -> _Choices:
        """A block that a run does not have is False, whether or not the run knows of it."""
        return tuple(point.get(name, False) for name in self.search_space)

    def __len__(self) -> int:
        """Number of combinations in the table."""
        return len(self._found)

    def __call__(self, trial: optuna.trial.BaseTrial) -> float:
        """Returns the mean accuracy of a trial's combination, in [0, 1].

        Raises:
            optuna.TrialPruned: If there is no run of it.
        """
        return self.accuracies[self.find(trial)]

    def find(self, trial: optuna.trial.BaseTrial) -> int:
        """Lets a trial choose a combination, and returns its number.

        Raises:
            optuna.TrialPruned: If there is no run of it.
        """
        return self.look_up(
            {
                name: trial.suggest_categorical(name, distribution.choices)
                for name, distribution in self.search_space.items()
            }
        )

    def look_up(self, params: Mapping[str, CategoricalChoiceType]) -> int:
        """Returns the number of a combination by its parameters' values.

        Raises:
            optuna.TrialPruned: If there is no run of it.
        """
        key = tuple(params[name] for name in self.search_space)
        if key not in self._index:
            raise optuna.TrialPruned("there is no record of this combination")
        return self._index[key]

    def near_best(self) -> tuple[bool, ...]:
        """Returns whether a combination lies within the 95 % interval of the best one's mean.

        Raises:
            ValueError: If the best one has fewer than two seeds.
        """
        best = max(self.accuracies_by_seed, key=fmean)
        if len(best) < 2:
            raise ValueError(
                f"an interval of the best combination needs at least 2 seeds, got {len(best)}"
            )
        low, _ = mean_interval(best)
        return tuple(accuracy >= float(low) for accuracy in self.accuracies)

    def recorded_runs(self) -> list[list[RecordedRun]]:
        """Returns the runs of each combination, epoch by epoch.

        Raises:
            ValueError: If the learning curve or the time of a run is not known.
        """
        if not isinstance(self._records, Benchmark):
            raise ValueError("learning curves need a Benchmark, got a plain sequence of records")
        return [
            [_recorded_run(self._records, record) for record in runs]
            for runs in self._found.values()
        ]


def _recorded_run(stored: Benchmark, record: Record) -> RecordedRun:
    curve = tuple(float(row["validation_robust"]) for row in stored.metrics_of(record))
    seconds = record.provenance.get("train_seconds")
    if seconds is None:
        raise ValueError(f"run {record.run_id!r} has no training time, train_seconds")
    is_last = record.config.get("select_on") == "last"
    return RecordedRun(curve, curve[-1] if is_last else max(curve), float(seconds))


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
