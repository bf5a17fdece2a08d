"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from io import StringIO

from analysis.tables.layout import Grid, GridRow, lay_out
from analysis.tables.table import Table
from nasbench_at.records.table_files import plain_cell

__all__ = [
    "CSV_FIELDS",
    "escape_markdown",
    "pipe_row",
    "render_latex",
    "render_markdown",
    "table_to_csv",
]

CSV_FIELDS = (
    *("table", "section", "row", "column", "value", "std", "num_seeds", "num_samples", "is_best"),
    *("published", "published_std", "run_ids"),
)
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_|<>\[\]~#])")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "β": r"$\beta$",
    "ε": r"$\epsilon$",
    "∞": r"$\infty$",
    "\N{EN DASH}": "--",
}


def render_markdown(table: Table) -> str:
    """Renders a table as GitHub-flavoured Markdown, the best numbers in bold."""
    grid = lay_out(table)
    lines = [
        f"**Table {table.number}.** {escape_markdown(table.title)}",
        "",
        pipe_row([escape_markdown(grid.head), *map(escape_markdown, grid.headings)]),
        pipe_row(["---", *["---:"] * len(grid.headings)]),
        *(pipe_row(_markdown_row(row, len(grid.headings))) for row in grid.rows),
        "",
        *(f"{escape_markdown(note)}  " for note in table.notes if note),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_row(row: GridRow, num_columns: int) -> list[str]:
    if row.kind == "section":
        return [f"**{escape_markdown(row.label)}**", *[""] * num_columns]
    texts = (
        f"**{text}**" if cell.is_best else text
        for cell, text in ((cell, escape_markdown(cell.text)) for cell in row.cells)
    )
    return [escape_markdown(row.label), *texts]


def pipe_row(texts: Sequence[str]) -> str:
    """Returns a row of a table in Markdown; the cells are escaped already."""
    return f"| {' | '.join(texts)} |"


def escape_markdown(text: str) -> str:
    """Returns text that Markdown shows as it is, in one line."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render_latex(table: Table) -> str:
    """Renders a table as LaTeX for the package booktabs, the best numbers in bold."""
    grid = lay_out(table)
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_latex(table.title)}}}",
        f"  \\label{{tab:{table.number}}}",
        f"  \\begin{{tabular}}{{l{'r' * len(grid.headings)}}}",
        r"    \toprule",
        f"    {_ampersand([_latex(grid.head), *map(_latex, grid.headings)])}",
        *(f"    {line}" for line in _latex_body(grid)),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(f"  \\par\\footnotesize {_latex(note)}" for note in table.notes if note),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_body(grid: Grid) -> Iterator[str]:
    for row in grid.rows:
        if row.kind == "section":
            yield r"\midrule"
            yield f"\\multicolumn{{{1 + len(grid.headings)}}}{{c}}{{{_latex(row.label)}}} \\\\"
            yield r"\midrule"
            continue
        if row.kind == "improvement":
            yield r"\addlinespace"
        texts = [(cell, _latex(cell.text)) for cell in row.cells]
        bold = [f"\\textbf{{{text}}}" if cell.is_best else text for cell, text in texts]
        yield _ampersand([_latex(row.label), *bold])


def _ampersand(texts: list[str]) -> str:
    return f"{' & '.join(texts)} \\\\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def table_to_csv(table: Table) -> str:
    """Returns a table as CSV, a line a number, with all that is known of it.

    Columns are :data:`CSV_FIELDS`; numbers are not rounded, and ``run_ids`` are parted by blanks.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            values = (
                *(table.number, row.section, row.label, column.label, cell.value, cell.std),
                *(cell.num_seeds, cell.num_samples, cell.is_best),
                *(cell.published, cell.published_std, " ".join(cell.run_ids)),
            )
            writer.writerow(map(plain_cell, values))
    return text.getvalue()
