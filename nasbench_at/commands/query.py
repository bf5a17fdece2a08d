"""``nasbench-at query``: everything that was run, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from nasbench_at.allowed_values import Count, Name
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config import ModelOptions

if TYPE_CHECKING:
    import pandas as pd

    from nasbench_at.records import Benchmark

__all__ = ["QueryArguments", "run_query"]

OUT_SUFFIXES = (".csv", ".tex", ".jsonl", ".parquet")


@dataclass(frozen=True)
class QueryArguments:
    """Arguments of ``nasbench-at query``.

    Attributes:
        paths: Folders of runs, or .jsonl or .parquet files of records.
        where: What the configuration must have, such as method=at.
        columns: Columns to show; by default what differs between the runs, and the accuracies.
        sort: Column to sort by, highest first.
        summary: A row a configuration, with mean, standard deviation and 95 % interval over seeds.
        top: Show so many rows.
        out: Write the rows to a .csv or .tex file, or the records behind them to a .jsonl or
            .parquet file.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = (Path("runs"),)
    where: ModelOptions = field(default_factory=dict)
    columns: tuple[Name, ...] = ()
    sort: Name | None = None
    summary: bool = False
    top: Count | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.out is not None and self.out.suffix not in OUT_SUFFIXES:
            allowed = f"{', '.join(OUT_SUFFIXES[:-1])} or {OUT_SUFFIXES[-1]}"
            raise ValueError(f"--out must end in {allowed}, got {str(self.out)!r}")


def run_query(words: Sequence[str]) -> int:
    """Show and export the records of many runs as one table."""
    from nasbench_at.flags import parse_flags

    with bad_input():
        arguments = parse_flags(
            QueryArguments, words, command="query", description=run_query.__doc__
        )
    from nasbench_at.console import show_frame, stdout
    from nasbench_at.records import Benchmark

    with bad_input(), one_line_warnings():
        records = Benchmark.load(*arguments.paths).query(**arguments.where)
        frame = records.summary() if arguments.summary else records.to_frame()
        frame = _arrange(frame, arguments)
        if arguments.out is not None:
            _write(arguments.out, records, frame)
    show_frame(frame)
    if arguments.out is not None:
        stdout.print(f"written to {arguments.out}", highlight=False, soft_wrap=True)
    return 0


def _write(path: Path, records: Benchmark, frame: pd.DataFrame) -> None:
    from nasbench_at.tables import write_frame

    if path.suffix in (".csv", ".tex"):
        write_frame(frame, path)
        return
    try:
        records.save(path)
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror}") from None


def _arrange(frame: pd.DataFrame, arguments: QueryArguments) -> pd.DataFrame:
    for name in (*arguments.columns, *filter(None, [arguments.sort])):
        if name not in frame.columns:
            raise ValueError(f"no column {name!r}; there are {', '.join(map(str, frame.columns))}")
    if arguments.sort is not None:
        frame = frame.sort_values(arguments.sort, ascending=False, kind="stable")
    if arguments.columns:
        frame = frame[list(arguments.columns)]
    elif not arguments.summary and len(frame) > 1:
        texts = frame.astype(str)
        kept = [name for name in frame.columns if texts[name].nunique() > 1]
        frame = frame[kept]
    return frame if arguments.top is None else frame.head(arguments.top)
