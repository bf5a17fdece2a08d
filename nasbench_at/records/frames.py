"""Tables over many records: as rows of plain data, and as frames of pandas, which loads slowly."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from nasbench_at.config.contents import replace_paths
from nasbench_at.records.conditions import describe_conditions, find_obstacle
from nasbench_at.records.evaluation import AttackResult
from nasbench_at.records.record import Record
from nasbench_at.records.seeds import mean_interval

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "curve_rows",
    "frame_of",
    "group_seeds",
    "record_rows",
    "result_rows",
    "summary_rows",
    "varying_keys",
]

Row = dict[str, Any]


def frame_of(rows: Sequence[Row]) -> pd.DataFrame:
    """Returns rows as a frame."""
    import pandas as pd

    return pd.DataFrame(rows)


def record_rows(records: Sequence[Record]) -> list[Row]:
    """Returns a row a record, as :meth:`nasbench_at.Benchmark.to_frame` describes it."""
    return [
        {
            "run_id": record.run_id,
            **record.config,
            "num_params": record.num_params,
            "train_seconds": record.provenance.get("train_seconds", math.nan),
            "evaluation_seconds": _evaluation_seconds(record),
            **_accuracies(record),
        }
        for record in records
    ]


def result_rows(records: Sequence[Record]) -> list[Row]:
    """Returns a row a result, as :meth:`nasbench_at.Benchmark.results_frame` describes it."""
    return [_describe_result(record, row) for record in records for row in record.all_results]


def _describe_result(record: Record, result: AttackResult) -> dict[str, Any]:
    low, high = result.interval
    settings = result.settings
    return {
        "run_id": record.run_id,
        "seed": record.config.get("seed"),
        "attack": result.attack,
        "norm": result.norm,
        "eps": result.eps,
        "steps": settings.get("steps"),
        "step_size": settings.get("step_size"),
        "restarts": settings.get("restarts"),
        "num_samples": result.num_samples,
        "num_correct": result.num_correct,
        "accuracy": result.accuracy,
        "low": low,
        "high": high,
        "seconds": result.seconds,
        "conditions": describe_conditions(result),
        "data": result.data,
        "data_fingerprint": result.data_fingerprint,
        "subset": result.subset,
        "attack_seed": result.seed,
        "key": result.key,
    }


def group_seeds(records: Sequence[Record]) -> list[list[Record]]:
    """Returns the records of each configuration, which differ in nothing but their seeds.

    Files of equal contents are the same, wherever they lie. A record without a seed, such as a
    user's model, is a group of its own.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        identity = replace_paths({k: v for k, v in record.config.items() if k != "seed"})
        if record.config.get("seed") is None:
            identity["run_id"] = record.run_id
        groups.setdefault(json.dumps(identity, sort_keys=True), []).append(record)
    return list(groups.values())


def summary_rows(groups: Sequence[Sequence[Record]]) -> list[Row]:
    """Returns a row a configuration, as :meth:`nasbench_at.Benchmark.summary` describes it.

    A mean over different conditions is NaN, without columns of conditions; a warning says why, one
    for each attack. A worst case over other attacks is another measure, which needs none.

    Args:
        groups: The records of each configuration, as :func:`group_seeds` returns them.
    """
    varying = varying_keys([group[0].config for group in groups])
    rows = []
    obstacles: dict[str, list[str]] = {}
    for group in groups:
        row: dict[str, Any] = {key: group[0].config.get(key) for key in varying}
        row |= {"num_params": group[0].num_params, "seeds": len(group)}
        for attack in dict.fromkeys(name for record in group for name in record.results):
            measured = [(r, r.results[attack]) for r in group if r.was_evaluated_by(attack)]
            if obstacle := find_obstacle(measured):
                if attack != "worst_case":
                    obstacles.setdefault(attack, []).append(obstacle)
                row[attack] = math.nan
                continue
            row |= _describe(attack, [result.accuracy for _, result in measured])
            row |= _conditions_columns(measured[0][1])
        rows.append(row)
    for attack, (first, *others) in obstacles.items():
        likewise = f"; likewise of {len(others)} more networks" if others else ""
        warnings.warn(f"no mean of {attack!r} over seeds: {first}{likewise}", stacklevel=4)
    return rows


def curve_rows(curves: Iterable[tuple[Record, Sequence[Row]]]) -> list[Row]:
    """Returns a row an epoch, as :meth:`nasbench_at.Benchmark.learning_curves` describes it."""
    return [
        {
            "run_id": record.run_id,
            "epoch": line["epoch"],
            **{key: value for key, value in line.items() if not isinstance(value, list | dict)},
        }
        for record, lines in curves
        for line in lines
    ]


def _accuracies(record: Record) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, result in record.results.items():
        columns |= {name: result.accuracy, **_conditions_columns(result)}
    return columns


def _conditions_columns(result: AttackResult) -> dict[str, Any]:
    name = result.attack
    attacked = (
        {} if result.eps is None else {f"{name}_norm": result.norm, f"{name}_eps": result.eps}
    )
    return {**attacked, f"{name}_num_samples": result.num_samples}


def _describe(attack: str, values: Sequence[float]) -> Row:
    low, high = mean_interval(values)
    return {
        attack: fmean(values),
        f"{attack}_std": stdev(values) if len(values) > 1 else math.nan,
        f"{attack}_low": float(low),
        f"{attack}_high": float(high),
        f"{attack}_seeds": len(values),
    }


def _evaluation_seconds(record: Record) -> float:
    """Seconds of all rows; the parts of an attack are in those of the whole."""
    seconds = [row.seconds for row in record.all_results if "/" not in row.attack]
    return math.fsum(seconds) if seconds else math.nan


def varying_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys, but for the seed, in which configurations differ."""
    keys = dict.fromkeys(key for config in configs for key in config if key != "seed")
    first = configs[0] if configs else {}
    return [key for key in keys if any(config.get(key) != first.get(key) for config in configs)]
