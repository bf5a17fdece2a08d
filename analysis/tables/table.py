"""What a table is: plain data that says where each number comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Cell", "Column", "Row", "Table"]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: Mean over seeds; accuracies and improvements in percent, parameters in millions,
            ranks from 1. None where nothing was measured.
        std: Sample standard deviation over seeds, in the unit of ``value``; None for one seed.
        num_seeds: How many seeds the mean is of.
        num_samples: Test images behind each of the accuracies; None if it is not an accuracy.
        is_best: Whether no other network of the section is better; False if there is no other.
        published: The number that the paper prints for the same data set, method, β, network and
            radius; None where it prints none.
        published_std: The deviation behind it.
        run_ids: The runs it was computed from.
    """

    value: float | None = None
    std: float | None = None
    num_seeds: int = 0
    num_samples: int | None = None
    is_best: bool = False
    published: float | None = None
    published_std: float | None = None
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        label: Its heading.
        digits: How many digits behind the point are shown.
    """

    label: str
    digits: int = 2


@dataclass(frozen=True)
class Row:
    """A row of numbers.

    Attributes:
        section: What the rows of a section share, such as the data set.
        label: What stands before the numbers.
        cells: One a column.
        kind: ``improvement`` for the best DS-Net over the best baseline, else ``measured``.
    """

    section: str
    label: str
    cells: tuple[Cell, ...]
    kind: Literal["measured", "improvement"] = "measured"


@dataclass(frozen=True)
class Table:
    """A table in the paper's layout.

    Attributes:
        number: Its number in the paper.
        title: What it shows.
        head: Heading of the rows' labels.
        columns: The columns of numbers.
        rows: The rows, those of a section together.
        notes: Seeds, images, attacks, and what a reader must know to judge the numbers.
        published_in: Whether published numbers stand in columns or in rows of their own.
    """

    number: int
    title: str
    head: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    published_in: Literal["columns", "rows"] = "columns"

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs behind all numbers, each once."""
        return tuple(
            dict.fromkeys(i for row in self.rows for cell in row.cells for i in cell.run_ids)
        )
