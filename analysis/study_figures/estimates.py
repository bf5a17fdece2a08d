"""Accuracies with their uncertainty, and what they were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from analysis.comparability import (
    NAMED_KEYS,
    check_evaluated_alike,
    check_one_number,
    check_trained_alike,
    ds_net_of,
)
from analysis.errors import IncomparableRunsError, MissingRunsError
from nasbench_at.config.architecture import architecture_of
from nasbench_at.records import Record, mean_interval
from nasbench_at.records.naming.labels import data_label, method_label, metric_label

__all__ = [
    "MIN_SEEDS",
    "Accuracies",
    "Estimate",
    "average",
    "check_one_setting",
    "describe_setting",
    "ds_nets_of",
    "estimate_both",
    "estimate_values",
]

MIN_SEEDS = 5
"""From so many runs on a mean has an interval; fewer are shown one by one."""


@dataclass(frozen=True)
class Estimate:
    """An accuracy.

    Attributes:
        values: One a run, or, of an average over networks, one a network; in [0, 1].
        interval: Ends of the 95 % interval. Of one run: Wilson's, over its images. Of five values
            or more: that of their mean, by Student's t distribution. None of two to four, and of
            an average over one network.
        num_samples: Test images of each run.
        run_ids: The runs' names.
    """

    values: tuple[float, ...]
    interval: tuple[float, float] | None
    num_samples: int
    run_ids: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return mean(self.values)


@dataclass(frozen=True)
class Accuracies:
    """Both accuracies of a network.

    Attributes:
        natural: Natural accuracy.
        robust: Accuracy under the attack.
    """

    natural: Estimate
    robust: Estimate


def estimate_both(records: Sequence[Record], attack: str, varied: Iterable[str] = ()) -> Accuracies:
    """Returns the accuracies of runs that differ in their seeds only.

    Args:
        records: One run or more, all evaluated.
        attack: Whose accuracy is the robust one.
        varied: Configuration keys by which the runs may differ besides.

    Raises:
        ValueError: If two of the runs have the same seed, or differ in more.
    """
    check_one_number(records, varied)
    return Accuracies(_estimate(records, "natural"), _estimate(records, attack))


def _estimate(records: Sequence[Record], metric: str) -> Estimate:
    results = [record.results[metric] for record in records]
    values = tuple(result.accuracy for result in results)
    return Estimate(
        values=values,
        interval=results[0].interval if len(values) == 1 else _interval(values),
        num_samples=results[0].num_samples,
        run_ids=tuple(record.run_id for record in records),
    )


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < MIN_SEEDS:
        return None
    low, high = mean_interval(values)
    return float(low), float(high)


def estimate_values(
    values: Sequence[float], num_samples: int, run_ids: tuple[str, ...]
) -> Estimate:
    """Returns what was computed from the accuracies of each seed, a value a seed.

    Args:
        values: They.
        num_samples: Test images of each run.
        run_ids: The runs behind all of them.
    """
    return Estimate(tuple(map(float, values)), _interval(values), num_samples, run_ids)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Returns the mean of networks' accuracies, a value a network; the spread is between these."""
    values = tuple(item.mean for item in estimates)
    return Estimate(
        values=values,
        interval=_interval(values),
        num_samples=estimates[0].num_samples,
        run_ids=tuple(name for item in estimates for name in item.run_ids),
    )


def ds_nets_of(records: Sequence[Record], attack: str, figure: str) -> list[Record]:
    """Returns the runs of DS-Nets that were evaluated by an attack.

    Raises:
        MissingRunsError: If there is none.
    """
    found = [
        record
        for record in records
        if architecture_of(record.config) is not None
        and record.was_evaluated_by("natural")
        and record.was_evaluated_by(attack)
    ]
    if not found:
        raise MissingRunsError(
            f"{figure} needs DS-Nets evaluated by natural and {attack}; none of {len(records)} "
            "records is one"
        )
    return found


def check_one_setting(runs: Sequence[Record], attack: str, figure: str) -> None:
    """Raises a ValueError unless DS-Nets were trained and evaluated alike, at one depth.

    Their widths may differ: they are what makes numbers of parameters equal.

    Args:
        runs: Runs of DS-Nets.
        attack: Whose accuracies are compared.
        figure: Its name, for the message.
    """
    depths = {ds_net_of(record).num_modules: record for record in runs}
    if len(depths) > 1:
        found = ", ".join(f"{number} modules ({r.run_id})" for number, r in depths.items())
        raise IncomparableRunsError(f"{figure} compares networks of one depth, got {found}")
    check_trained_alike(runs, NAMED_KEYS, figure)
    check_evaluated_alike(runs, ("natural", attack), figure)


def describe_setting(record: Record, attack: str, *, with_method: bool = True) -> str:
    """Says in one line how the runs of a figure were trained and attacked."""
    config = record.config
    result = record.results[attack]
    method = method_label(str(config.get("method")), config.get("beta"))
    parts = [data_label(str(config.get("data"))), *([method] if with_method else [])]
    parts.append(f"{metric_label(attack)} at ε = {result.eps}")
    parts.append(f"{result.num_samples:,} images")
    return ", ".join(parts)
