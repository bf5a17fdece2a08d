"""The numbers printed in the paper's tables, to stand beside those that were measured."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["PublishedResult", "published_results"]


@dataclass(frozen=True)
class PublishedResult:
    """One cell of a table of the paper.

    Attributes:
        table: Number of the table, 1 to 6.
        data: Data set.
        method: Way of training.
        beta: Weight of the robust term of TRADES and MART.
        model: Name of the network.
        kept_blocks: Table 4: how many blocks a module was pruned to, with fixed weights; None is
            the network as searched.
        weight_decay: Table 6: weight decay of the training.
        metric: ``natural``, ``fgsm``, ``pgd`` (20 steps), ``cw`` (30 steps) or ``aa``.
        accuracy: Accuracy in percent.
        std: Standard deviation that the paper prints behind it, where it does.

    Reference:
        Du et al., ICML 2021. Its Tables 4 and 6 were probably measured once, on 1,280 of the test
        images: all their values but one are multiples of 1/1280.
    """

    table: int
    data: str
    method: str
    beta: float | None
    model: str
    kept_blocks: int | None
    weight_decay: float | None
    metric: str
    accuracy: float
    std: float | None


def published_results(table: int | None = None) -> tuple[PublishedResult, ...]:
    """Returns the cells of one table of the paper, or of all six.

    Raises:
        ValueError: If the paper has no such table.
    """
    if table not in (None, 1, 2, 3, 4, 5, 6):
        raise ValueError(f"table must be one of 1 to 6, got {table!r}")
    text = (files("analysis.tables") / "published.csv").read_text("utf-8")
    rows = (_read(row) for row in csv.DictReader(text.splitlines()))
    return tuple(row for row in rows if table in (None, row.table))


def _read(row: dict[str, str]) -> PublishedResult:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return PublishedResult(
        table=int(row["table"]),
        data=row["data"],
        method=row["method"],
        beta=number("beta"),
        model=row["model"],
        kept_blocks=int(row["kept_blocks"]) if row["kept_blocks"] else None,
        weight_decay=number("weight_decay"),
        metric=row["metric"],
        accuracy=float(row["accuracy"]),
        std=number("std"),
    )
