"""``nasbench-at query``: everything that was run, as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nasbench_at.commands.flags import parse_flags
from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.config import ModelOptions
from nasbench_at.config.allowed_values import Count, ExistingFile, Name, NewFile, Place, Positional
from nasbench_at.config.scalars import read_scalar

if TYPE_CHECKING:
    from nasbench_at.records import Benchmark

__all__ = ["QueryArguments", "run_query"]

OUT_SUFFIXES = (".csv", ".tex", ".jsonl", ".parquet")


@dataclass(frozen=True)
class QueryArguments:
    """Arguments of ``nasbench-at query``.

    Attributes:
        paths: Folders of runs, .parquet or .jsonl files of records, or tables that come with the
            package by name, such as digits; digits:RUN-ID is one run.
        where: What the configuration must have, such as method=at; of a list all entries, such as
            blocks=residual,dense, blocks in any order.
        columns: Columns to show, such as run_id network lr pgd pgd_eps; by default run, network,
            seed, and natural, PGD and AutoAttack accuracies.
        sort: Column to sort by, highest first; a summary by its PGD accuracy unless told.
        summary: A row a configuration, with means over seeds and their 95 % intervals.
        top: Show so many rows.
        out: Write the rows, all columns unless --columns says which, to a .csv or .tex file, or the
            records behind them, with learning curves and per-sample outcomes, to a .jsonl or
            .parquet file.
        card: A YAML file of title, description, license, url, creators, published (the day), limits
            and not_to_conclude. Write Croissant metadata with the SHA-256 and a data card beside
            the .parquet file, with these words in them.
    """

    paths: Positional[tuple[Place, ...]] = ("runs",)
    where: ModelOptions = field(default_factory=dict)
    columns: tuple[Name, ...] = ()
    sort: Name | None = None
    summary: bool = False
    top: Count | None = None
    out: Annotated[Path, NewFile(OUT_SUFFIXES)] | None = None
    card: Annotated[Path, ExistingFile()] | None = None


def run_query(words: Sequence[str]) -> int:
    """Show and export the records of many runs as one table."""
    arguments = parse_flags(QueryArguments, words, "query", run_query.__doc__)
    from nasbench_at.commands.console import is_terminal, show_table, stdout
    from nasbench_at.commands.query_table import QueryTable
    from nasbench_at.records.benchmark import Benchmark, no_garbage_collection

    with bad_input(), one_line_warnings(), no_garbage_collection():
        records = _select(Benchmark.load(*arguments.paths), arguments)
        table = QueryTable.of(records, is_summary=arguments.summary, is_brief=is_terminal())
        table = table.arrange(arguments.columns, arguments.sort, arguments.top)
        if arguments.top is not None:
            behind = {record.run_id for group in table.groups for record in group}
            records = records.filter(lambda record: record.run_id in behind)
        if arguments.card is not None:
            _publish(arguments, records)
        elif arguments.out is not None:
            _write(arguments.out, records, table.rows, arguments.columns)
    show_table(*table.texts(), numeric=table.numeric(), notes=table.notes())
    if arguments.out is not None:
        stdout.say(f"written to {arguments.out}")
    return 0


def _select(records: Benchmark, arguments: QueryArguments) -> Benchmark:
    """Returns the records that were asked for.

    Raises:
        ValueError: If there are none; the message says which values there are.
    """
    if not len(records):
        places = ", ".join(repr(path) for path in arguments.paths)
        raise ValueError(f"there is no record in {places}")
    where = {key: _read_list(records, key, value) for key, value in arguments.where.items()}
    found = records.query(**where)
    if len(found):
        return found
    raise ValueError(records.explain_no_match(**where))


def _read_list(records: Benchmark, key: str, value: Any) -> Any:
    """Reads ``residual,dense`` where records hold lists: the brackets of YAML need quotes."""
    is_listed = any(isinstance(record.config.get(key), list | tuple) for record in records)
    if not is_listed or value is None or isinstance(value, list | tuple):
        return value
    return [read_scalar(word) for word in str(value).split(",")]


def _publish(arguments: QueryArguments, records: Benchmark) -> None:
    from nasbench_at.records.published import publish, read_prose

    if arguments.card is None or arguments.out is None or arguments.out.suffix != ".parquet":
        raise ValueError("card goes with --out FILE.parquet, beside which it is written")
    prose = read_prose(arguments.card)
    try:
        publish(records, arguments.out, prose)
    except OSError as error:
        raise ValueError(f"cannot write {str(arguments.out)!r}: {error.strerror}") from None


def _write(
    path: Path, records: Benchmark, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    if path.suffix in (".csv", ".tex"):
        import pandas as pd

        from nasbench_at.records.table_files import write_frame

        frame = pd.DataFrame(list(rows))
        # A column that none of these rows has is empty.
        write_frame(frame.reindex(columns=list(columns)) if columns else frame, path)
        return
    try:
        records.save(path)
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror}") from None
