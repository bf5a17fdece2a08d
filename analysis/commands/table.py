"""``nasbench-at table``: the paper's tables from what was run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import (
    BadInputError,
    bad_input,
    one_line_warnings,
)
from nasbench_at.config.allowed_values import NewFile, Place, Positional, Range

__all__ = ["TableArguments", "run_table"]

TABLE_SUFFIXES = (".md", ".tex", ".csv")


@dataclass(frozen=True)
class TableArguments:
    """Arguments of ``nasbench-at table``.

    Attributes:
        number: 1 to 6, as in the paper.
        paths: Folders of runs or of studies, files of records, or tables by name.
        out: File to write: .md, .tex or .csv; without it the table is printed.
    """

    number: Positional[Annotated[int, Range("[1, 6]")]]
    paths: Positional[tuple[Place, ...]] = ("runs",)
    out: Annotated[Path, NewFile(TABLE_SUFFIXES)] | None = None


def run_table(words: Sequence[str]) -> int:
    """Make a table of the paper, 1 to 6, with the published numbers beside the measured ones."""
    arguments = parse_flags(TableArguments, words, "table", run_table.__doc__)
    from analysis.errors import UnsuitableRunsError
    from analysis.tables import compute_table, render_latex, render_markdown, table_to_csv
    from nasbench_at.commands.console import stdout
    from nasbench_at.records import Benchmark
    from nasbench_at.runtime.atomic_files import write_atomically

    with bad_input(), one_line_warnings():
        records = Benchmark.load(*arguments.paths)
    with bad_input(UnsuitableRunsError):
        table = compute_table(arguments.number, records)
    suffix = ".md" if arguments.out is None else arguments.out.suffix
    render = {".md": render_markdown, ".tex": render_latex, ".csv": table_to_csv}[suffix]
    text = render(table)
    if arguments.out is None:
        stdout.say(text)
        return 0
    try:
        write_atomically(arguments.out, text.encode())
    except OSError as error:
        raise BadInputError(f"cannot write {str(arguments.out)!r}: {error.strerror}") from None
    stdout.say(f"table written to {arguments.out}")
    return 0
