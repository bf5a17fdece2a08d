"""Cells from records, and the numbers of the paper that belong beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import mean, stdev
from typing import Any

from analysis.comparability import check_one_number
from analysis.tables.published import PublishedResult, published_results
from analysis.tables.table import Cell
from nasbench_at.config.architecture import TRAINED_BLOCKS, architecture_of
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import network_name

__all__ = [
    "PAPER_EPS",
    "accuracy_cell",
    "mark_best",
    "published_result",
]

PAPER_EPS = 0.031
_PAPER_WEIGHT_DECAY = 5e-4


def accuracy_cell(
    records: Sequence[Record],
    metric: str,
    published: PublishedResult | None = None,
    *,
    varied: Iterable[str] = (),
) -> Cell:
    """Returns the mean accuracy of runs that differ in their seeds only.

    Args:
        records: The runs; those that were not evaluated by ``metric`` do not count.
        metric: ``natural`` or an attack.
        published: The number of the paper to stand beside it.
        varied: Configuration keys by which the runs may differ besides.

    Raises:
        ValueError: If two of the runs have the same seed, or differ in more.
    """
    measured = [record for record in records if record.was_evaluated_by(metric)]
    if not measured:
        return Cell()
    check_one_number(measured, varied)
    values = [100 * record.accuracy(metric) for record in measured]
    return Cell(
        value=mean(values),
        std=stdev(values) if len(values) > 1 else None,
        num_seeds=len(values),
        num_samples=measured[0].results[metric].num_samples,
        published=None if published is None else published.accuracy,
        published_std=None if published is None else published.std,
        run_ids=tuple(record.run_id for record in measured),
    )


def published_result(
    table: int, record: Record, metric: str, *, kept_blocks: int | None = None
) -> PublishedResult | None:
    """Returns the paper's number for the same cell, if it prints one.

    Args:
        table: The table's number.
        record: A run: its data set, without extra data, and its method, β, network, radius and
            weight decay must be the paper's.
        metric: ``natural`` or an attack.
        kept_blocks: Table 4: how many blocks a module keeps.
    """
    row = record.results.get(metric)
    eps, norm = record.config.get("eps", PAPER_EPS), record.config.get("norm", "Linf")
    if row is not None and row.eps is not None:
        eps, norm = row.eps, str(row.norm)
    if norm != "Linf" or not math.isclose(eps, PAPER_EPS) or record.config.get("extra_data"):
        return None
    decay = record.config.get("weight_decay", _PAPER_WEIGHT_DECAY)
    model = _paper_model(record.config) if table in (4, 6) else network_name(record.config)
    wanted = (record.config.get("data"), record.config.get("method"), model)
    for result in _published(table):
        if (
            (result.data, result.method, result.model) == wanted
            and result.metric == metric
            and result.beta in (None, record.config.get("beta"))
            and result.kept_blocks == kept_blocks
            and math.isclose(result.weight_decay or _PAPER_WEIGHT_DECAY, decay)
        ):
            return result
    return None


@cache
def _published(table: int) -> tuple[PublishedResult, ...]:
    return published_results(table)


def _paper_model(config: Mapping[str, Any]) -> str | None:
    """DS-Net-4 under any width and pruning: Table 4 matches parameters by the width."""
    network = architecture_of(config)
    if network is None or (network.num_modules, network.widen_factor) != (15, 4):
        return None
    return "ds_net_4" if network.all_blocks <= set(TRAINED_BLOCKS) else None


def mark_best(cells: Sequence[Cell]) -> list[Cell]:
    """Marks the highest of two or more measured numbers, equal ones alike."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < 2:
        return list(cells)
    return [replace(cell, is_best=cell.value == max(values)) for cell in cells]
