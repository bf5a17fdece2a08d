"""A table as a grid of texts, which every rendering shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from analysis.tables.table import Cell, Row, Table

__all__ = ["Grid", "GridCell", "GridRow", "lay_out"]

NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class GridCell:
    """One place of the grid.

    Attributes:
        text: What stands there.
        is_best: Whether it is to stand out.
        run_ids: The runs behind it; empty for published numbers.
    """

    text: str
    is_best: bool = False
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class GridRow:
    """A line of the grid.

    Attributes:
        label: What stands first.
        cells: What follows, one a heading; empty for the title of a section.
        kind: What the line is.
    """

    label: str
    cells: tuple[GridCell, ...]
    kind: Literal["section", "measured", "published", "improvement"]


@dataclass(frozen=True)
class Grid:
    """A table, laid out.

    Attributes:
        head: Heading of the first column.
        headings: Headings of the others.
        rows: The lines.
    """

    head: str
    headings: tuple[str, ...]
    rows: tuple[GridRow, ...]


def lay_out(table: Table) -> Grid:
    """Lays a table out, published numbers beside the measured ones where there are some."""
    beside = [
        table.published_in == "columns"
        and any(row.cells[i].published is not None for row in table.rows)
        for i in range(len(table.columns))
    ]
    headings = [
        heading
        for column, has_published in zip(table.columns, beside, strict=True)
        for heading in (column.label, *([f"{column.label}, paper"] if has_published else []))
    ]
    rows: list[GridRow] = []
    for section, group in groupby(table.rows, key=lambda row: row.section):
        rows.append(GridRow(section, (), "section"))
        for row in group:
            rows += _lines_of(table, row, beside)
    return Grid(table.head, tuple(headings), tuple(rows))


def _lines_of(table: Table, row: Row, beside: list[bool]) -> Iterator[GridRow]:
    write = _improvement if row.kind == "improvement" else _plain
    cells: list[GridCell] = []
    for column, cell, has_published in zip(table.columns, row.cells, beside, strict=True):
        text = _number(cell.value, cell.std, column.digits, write)
        cells.append(GridCell(text, cell.is_best, () if text == NOTHING else cell.run_ids))
        if has_published:
            cells.append(GridCell(_published(cell, column.digits, write)))
    yield GridRow(row.label, tuple(cells), row.kind)
    if table.published_in == "rows" and any(cell.published is not None for cell in row.cells):
        published = (
            GridCell(_published(cell, column.digits, write))
            for column, cell in zip(table.columns, row.cells, strict=True)
        )
        yield GridRow(f"{row.label}, paper", tuple(published), "published")


def _published(cell: Cell, digits: int, write: Callable[[float, int], str]) -> str:
    text = _number(cell.published, None, digits, write)
    # As printed, with a digit more than the mean.
    return text + ("" if cell.published_std is None else f" ± {cell.published_std:.{digits + 1}f}")


def _plain(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def _improvement(value: float, digits: int) -> str:
    """As in the paper, no number where there is no improvement."""
    return f"{value:.{digits}f}%" if value > 0 else NOTHING


def _number(
    value: float | None, std: float | None, digits: int, write: Callable[[float, int], str]
) -> str:
    if value is None:
        return NOTHING
    return write(value, digits) + ("" if std is None else f" ± {std:.{digits}f}")
