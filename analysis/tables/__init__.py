"""Tables 1 to 6 of the paper from records: computed as plain data, rendered apart from that.

Example:
    ``render_markdown(compute_table(2, Benchmark.load("runs/")))``
"""

from __future__ import annotations

from analysis.errors import MissingRunsError
from analysis.tables.compute import TABLE_NUMBERS, compute_table
from analysis.tables.layout import Grid, GridCell, GridRow, lay_out
from analysis.tables.rendering import render_latex, render_markdown, table_to_csv
from analysis.tables.table import Cell, Column, Row, Table

__all__ = [
    "TABLE_NUMBERS",
    "Cell",
    "Column",
    "Grid",
    "GridCell",
    "GridRow",
    "MissingRunsError",
    "Row",
    "Table",
    "compute_table",
    "lay_out",
    "render_latex",
    "render_markdown",
    "table_to_csv",
]
