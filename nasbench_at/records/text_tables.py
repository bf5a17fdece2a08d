"""Tables as text: columns that fit a terminal, tab-separated lines for pipes, and Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

__all__ = ["format_columns", "format_markdown", "format_tabs"]

_GAP = "  "


def format_columns(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    numeric: Sequence[bool] = (),
) -> str:
    """Returns a table whose lines fit a width; words are never broken.

    The widest columns of text are wrapped at their blanks. A table that cannot be made to fit is
    turned into a block a row, a line a column.

    Args:
        headings: The columns' names.
        rows: Cells, one a column, in one line each.
        width: Characters a line.
        numeric: Which columns are numbers, which stand to the right; the others stand to the left.
    """
    rows = [list(map(_in_one_line, row)) for row in rows]
    columns = list(zip_longest(headings, *rows, fillvalue=""))
    is_right = list(numeric) or [False] * len(headings)
    widths = _fit(columns, is_right, width)
    if widths is None:
        return _format_blocks(headings, rows, width)
    lines = [*_wrap(headings, widths, is_right), _GAP.join("-" * n for n in widths)]
    for row in rows:
        lines += _wrap(row, widths, is_right)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def format_markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in Markdown, a line a row, without a newline at its end.

    Args:
        headings: The columns' names.
        rows: Cells, one a column; they may hold Markdown.
    """
    lines = []
    for row in [headings, ["---"] * len(headings), *rows]:
        cells = [_in_one_line(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_tabs(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a line a row, cells parted by tabs; a tab or line break within one is a blank."""
    return "".join("\t".join(map(_in_one_line, row)) + "\n" for row in (headings, *rows))


def _in_one_line(cell: str) -> str:
    """Whatever would move the cursor becomes a blank."""
    if cell.isprintable():
        return cell
    return "".join(char if char.isprintable() else " " for char in cell)


def _fit(
    columns: Sequence[Sequence[str]], is_right: Sequence[bool], width: int
) -> list[int] | None:
    """Returns the columns' widths, the widest text narrowed until all fit; None if it cannot."""
    widths = [max(map(len, column)) for column in columns]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if excess <= 0:
        return widths
    least = [
        whole if right else max((len(word) for cell in column for word in cell.split()), default=0)
        for column, whole, right in zip(columns, widths, is_right, strict=True)
    ]
    while excess > 0:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return None
        widths[widest] -= 1
        excess -= 1
    return widths


def _wrap(row: Sequence[str], widths: Sequence[int], is_right: Sequence[bool]) -> Iterator[str]:
    """Yields the lines of a row."""
    cells = [_wrap_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
    for texts in zip_longest(*cells, fillvalue=""):
        yield _GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, is_right, strict=True)
        )


def _wrap_cell(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    lines = textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def _format_blocks(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    margin = max(map(len, headings)) + len(_GAP)
    blocks = []
    for row in rows:
        lines = []
        for heading, cell in zip(headings, row, strict=True):
            first, *more = _wrap_cell(cell, max(1, width - margin))
            lines.append(f"{heading:<{margin}}{first}".rstrip())
            lines += [f"{'':<{margin}}{line}" for line in more]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
