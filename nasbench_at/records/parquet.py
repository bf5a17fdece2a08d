"""Records in a Parquet file: a row a record, for whatever reads tables."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nasbench_at.records.files import OnBroken
from nasbench_at.records.frames import frame_of, record_rows
from nasbench_at.records.record import Record
from nasbench_at.records.validation import parse
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["read_parquet", "write_parquet"]

_PLAIN_COLUMNS = ("run_id", "architecture", "num_params", "schema_version")
_JSON_COLUMNS = ("config", "provenance", "training", "evaluations")


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """Writes records to a Parquet file in place of what is there.

    The columns ``config``, ``provenance``, ``training`` and ``evaluations`` are JSON text and hold
    everything. The others are those of :meth:`nasbench_at.Benchmark.to_frame`, lists and mappings
    again as JSON text, so that the file can be queried without this package.

    Raises:
        ValueError: If pyarrow is not installed.
    """
    parquet = _import_parquet()
    import pyarrow

    frame = frame_of(record_rows(records))
    columns = {str(name): _flat_column(frame[name].tolist()) for name in frame.columns}
    parts = [record.to_dict() for record in records]
    columns |= {name: [part[name] for part in parts] for name in _PLAIN_COLUMNS}
    columns |= {name: [json.dumps(part[name]) for part in parts] for name in _JSON_COLUMNS}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path, on_broken: OnBroken) -> Iterator[Record]:
    """Yields the records of a file that :func:`write_parquet` wrote.

    Args:
        path: The file.
        on_broken: Called with the error of each record that cannot be read.

    Raises:
        ValueError: If pyarrow is not installed, or the file cannot be read.
    """
    parquet = _import_parquet()
    try:
        # From memory: pyarrow's own opening has other errors for each way a file can be missing.
        content = parquet.ParquetFile(io.BytesIO(path.read_bytes()))
        names = set(content.schema_arrow.names)
        if missing := [name for name in _PLAIN_COLUMNS + _JSON_COLUMNS if name not in names]:
            raise ValueError(f"it has no column {missing[0]!r}")
        rows = content.read(columns=[*_PLAIN_COLUMNS, *_JSON_COLUMNS]).to_pylist()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read records {str(path)!r}: {reason}") from None
    for number, row in enumerate(rows, start=1):
        try:
            parts = {name: parse(row[name] or "null") for name in _JSON_COLUMNS}
            record = Record.from_dict({**row, **parts})
        except (ValueError, TypeError) as error:
            on_broken(ValueError(f"cannot read row {number} of {str(path)!r}: {error}"))
        else:
            yield record


def _import_parquet() -> ModuleType:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            "Parquet files need pyarrow; install it with: pip install 'nasbench-at[parquet]'"
        ) from None
    module: ModuleType = parquet
    return module


def _flat_column(values: Sequence[Any]) -> list[Any]:
    """Returns a column's values as one type: as they are, or all as JSON text."""
    known = [value for value in values if value is not None and value == value]  # NaN: unknown
    kinds = {type(value) for value in known}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return [value if value == value else None for value in values]
    return [json.dumps(value) if value is not None and value == value else None for value in values]
