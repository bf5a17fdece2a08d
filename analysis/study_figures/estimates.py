"""Accuracies with their uncertainty, and what they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from analysis.ds_net_configs import DSNetShape, read_ds_net
from analysis.naming import data_label, method_label, metric_label
from analysis.selection import (
    NAMED_KEYS,
    MissingRunsError,
    check_distinct_seeds,
    check_evaluated_alike,
    check_trained_alike,
)
from nasbench_at.records import Record

__all__ = [
    "Estimate",
    "average",
    "check_one_setting",
    "describe_setting",
    "ds_nets_of",
    "estimate",
]


@dataclass(frozen=True)
class Estimate:
    """An accuracy.

    Attributes:
        mean: Mean over runs, in [0, 1].
        low: Lower end of what ``spread`` says.
        high: Upper end.
        spread: ``interval`` of one run: its 95 % Wilson interval; ``std`` of several: the mean
            minus and plus their sample standard deviation.
        num_runs: How many runs.
        num_samples: Test images of each.
        run_ids: Their names.
    """

    mean: float
    low: float
    high: float
    spread: Literal["interval", "std"]
    num_runs: int
    num_samples: int
    run_ids: tuple[str, ...]


def estimate(records: Sequence[Record], metric: str) -> Estimate:
    """Returns the accuracy of runs that differ in their seeds only.

    Args:
        records: One run or more, all evaluated.
        metric: ``natural`` or an attack.

    Raises:
        ValueError: If two of the runs have the same seed.
    """
    check_distinct_seeds(records)
    results = [record.results[metric] for record in records]
    values = [result.accuracy for result in results]
    centre = mean(values)
    if len(values) == 1:
        low, high = results[0].interval
    else:
        low, high = centre - stdev(values), centre + stdev(values)
    return Estimate(
        mean=centre,
        low=low,
        high=high,
        spread="interval" if len(values) == 1 else "std",
        num_runs=len(values),
        num_samples=results[0].num_samples,
        run_ids=tuple(record.run_id for record in records),
    )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Returns the mean of several networks' accuracies; the spread is that between networks."""
    if len(estimates) == 1:
        return estimates[0]
    values = [item.mean for item in estimates]
    centre, spread = mean(values), stdev(values)
    return Estimate(
        mean=centre,
        low=centre - spread,
        high=centre + spread,
        spread="std",
        num_runs=sum(item.num_runs for item in estimates),
        num_samples=estimates[0].num_samples,
        run_ids=tuple(name for item in estimates for name in item.run_ids),
    )


def ds_nets_of(
    records: Sequence[Record], attack: str, figure: str
) -> list[tuple[Record, DSNetShape]]:
    """Returns the DS-Nets that were evaluated by an attack, with their shapes.

    Raises:
        MissingRunsError: If there is none.
    """
    found = [
        (record, shape)
        for record in records
        if (shape := read_ds_net(record.config)) is not None
        and record.was_evaluated_by("natural")
        and record.was_evaluated_by(attack)
    ]
    if not found:
        raise MissingRunsError(
            f"{figure} needs DS-Nets evaluated by natural and {attack}; none of {len(records)} "
            "records is one"
        )
    return found


def check_one_setting(nets: Sequence[tuple[Record, DSNetShape]], attack: str, figure: str) -> None:
    """Raises a ValueError unless networks were trained and evaluated alike, at one depth.

    Args:
        nets: The runs and their shapes.
        attack: Whose accuracies are compared.
        figure: Its name, for the message.
    """
    depths = {(shape.num_modules, shape.widen_factor): record for record, shape in nets}
    if len(depths) > 1:
        found = ", ".join(f"{n} modules with k = {k} ({r.run_id})" for (n, k), r in depths.items())
        raise ValueError(f"{figure} compares networks of one depth, got {found}")
    records = [record for record, _ in nets]
    check_trained_alike(records, NAMED_KEYS, figure)
    check_evaluated_alike(records, ("natural", attack), figure)


def describe_setting(record: Record, attack: str, *, with_method: bool = True) -> str:
    """Says in one line how the runs of a figure were trained and attacked."""
    config = record.config
    result = record.results[attack]
    method = method_label(str(config.get("method")), config.get("beta"))
    parts = [data_label(str(config.get("data"))), *([method] if with_method else [])]
    parts.append(f"{metric_label(attack)} at ε = {result.eps}")
    parts.append(f"{result.num_samples:,} images")
    return ", ".join(parts)
