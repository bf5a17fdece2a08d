"""Which function computes which table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from analysis.tables.ablation import compute_pruning_table, compute_weight_decay_table
from analysis.tables.comparison import compute_attack_table, compute_misalignment_table
from analysis.tables.table import Table
from nasbench_at.records import Record

__all__ = ["TABLE_NUMBERS", "compute_table"]

_TABLES: Mapping[int, Callable[[Iterable[Record]], Table]] = {
    1: compute_misalignment_table,
    2: partial(compute_attack_table, 2),
    3: partial(compute_attack_table, 3),
    4: compute_pruning_table,
    5: partial(compute_attack_table, 5),
    6: compute_weight_decay_table,
}
TABLE_NUMBERS = tuple(_TABLES)


def compute_table(number: int, records: Iterable[Record]) -> Table:
    """Computes a table of the paper from whichever of the records belong to it.

    Args:
        number: 1 (accuracy after ST against robustness after AT), 2 (AT), 3 (MART), 4 (pruning),
            5 (TRADES) or 6 (weight decay).
        records: A :class:`nasbench_at.records.Benchmark`, or any records.

    Raises:
        MissingRunsError: A ValueError; if no evaluated run belongs to the table. The message says
            what it needs.
        ValueError: If the paper has no such table, or runs that would stand side by side were
            evaluated on different images, at different radii or with different settings.
    """
    if number not in _TABLES:
        raise ValueError(f"table must be one of 1 to 6, got {number!r}")
    return _TABLES[number](records)
