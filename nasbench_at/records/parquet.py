"""Records in a Parquet file: a row a record, with its learning curve and per-sample outcomes.

The footer says the version of the layout, how many rows there are and the SHA-256 of all that
stands before it, so that a file that was cut short or edited is not taken for data.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from nasbench_at.records.columns import describe_column
from nasbench_at.records.files import OnBroken, StoredRecord
from nasbench_at.records.frames import record_rows
from nasbench_at.records.measurements import MEASURED, StoredMeasurements
from nasbench_at.records.record import Record
from nasbench_at.records.validation import parse
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["TABLE_VERSION", "read_parquet", "write_parquet"]

TABLE_VERSION: Literal[1] = 1
"""Layout of the file; that of the records in it is theirs."""

_PLAIN_COLUMNS = ("run_id", "architecture", "num_params", "schema_version")
_JSON_COLUMNS = ("config", "provenance", "training", "evaluations")
_VERSION, _NUM_ROWS, _SHA256 = "nasbench_at.version", "nasbench_at.rows", "nasbench_at.sha256"
_END = 8
"""Bytes behind the footer: its length and the format's mark."""


def write_parquet(path: Path, rows: Sequence[StoredRecord]) -> None:
    """Writes records to a Parquet file in place of what is there.

    The columns ``config``, ``provenance``, ``training``, ``evaluations``, ``metrics``, ``outcomes``
    and ``subsets`` are JSON text and hold everything. The others are those of
    :meth:`nasbench_at.Benchmark.to_frame`, lists and mappings again as JSON text, so that the file
    can be queried without this package. Each has its meaning and unit in its metadata.

    Args:
        path: The file.
        rows: Records, and what they measured.

    Raises:
        ValueError: If what a record measured cannot be read.
    """
    import pyarrow
    from pyarrow import parquet

    records = [record for record, _ in rows]
    columns = _flat_columns(record_rows(records))
    parts = [record.to_dict() for record in records]
    columns |= {name: [part[name] for part in parts] for name in _PLAIN_COLUMNS}
    columns |= {name: [json.dumps(part[name]) for part in parts] for name in _JSON_COLUMNS}
    measured = [None if found is None else found.to_dict(record) for record, found in rows]
    columns |= {
        name: [json.dumps(each[name]) if each and each[name] else None for each in measured]
        for name in MEASURED
    }
    table = pyarrow.table(columns)
    fields = [field.with_metadata(describe_column(field.name).to_dict()) for field in table.schema]
    table = table.cast(pyarrow.schema(fields))
    buffer = io.BytesIO()
    with parquet.ParquetWriter(
        buffer, table.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(table, row_group_size=max(1, len(rows)))
        writer.add_key_value_metadata(
            {
                _VERSION: str(TABLE_VERSION),
                _NUM_ROWS: str(len(rows)),
                _SHA256: hashlib.sha256(buffer.getvalue()).hexdigest(),
            }
        )
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path, on_broken: OnBroken) -> Iterator[StoredRecord]:
    """Yields the records of a file that :func:`write_parquet` wrote, and what they measured.

    Args:
        path: The file.
        on_broken: Called with the error of each record that cannot be read.

    Raises:
        ValueError: If the file cannot be read, is of a newer version, was cut short or edited.
    """
    import pyarrow

    try:
        rows = _read_rows(path.read_bytes())
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read records {str(path)!r}: {reason}") from None
    for number, row in enumerate(rows, start=1):
        try:
            measured = {name: row.pop(name) for name in MEASURED}
            parts = {name: parse(row[name] or "null") for name in _JSON_COLUMNS}
            record = Record.from_dict({**row, **parts})
        except (ValueError, TypeError) as error:
            on_broken(ValueError(f"cannot read row {number} of {str(path)!r}: {error}"))
        else:
            has_any = any(part is not None for part in measured.values())
            yield record, StoredMeasurements(record, measured) if has_any else None


def _read_rows(content: bytes) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    # From memory: pyarrow's own opening has other errors for each way a file can be missing. From
    # its own, or a thread of its would read, and abort the process that ends before it has let go.
    file = parquet.ParquetFile(pyarrow.BufferReader(content), page_checksum_verification=True)
    said = {
        key.decode(): value.decode(errors="replace")
        for key, value in (file.metadata.metadata or {}).items()
        if key.startswith(b"nasbench_at.")
    }
    version = said.get(_VERSION)
    if version is None:
        raise ValueError("it is no table of runs: nasbench-at did not write it, or it was edited")
    if version != str(TABLE_VERSION):
        raise ValueError(
            f"it has version {version} of the table, this nasbench-at reads {TABLE_VERSION}; "
            "another version needs another nasbench-at"
        )
    footer = int.from_bytes(content[-_END : -_END // 2], "little")
    digest = hashlib.sha256(content[: len(content) - _END - footer]).hexdigest()
    if digest != said.get(_SHA256):
        raise ValueError("its content is not what was written: it was edited or is damaged")
    columns = [*_PLAIN_COLUMNS, *_JSON_COLUMNS, *MEASURED]
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise ValueError(f"it has no column {missing[0]!r}")
    rows: list[dict[str, Any]] = file.read(columns=columns, use_threads=False).to_pylist()
    if str(len(rows)) != said.get(_NUM_ROWS):
        raise ValueError(f"it has {len(rows)} rows and not {said.get(_NUM_ROWS)}: it is damaged")
    return rows


def _flat_columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return {name: _flat_column([row.get(name) for row in rows]) for name in names}


def _flat_column(values: Sequence[Any]) -> list[Any]:
    """Returns a column's values as one type: as they are, or all as JSON text."""
    known = [value for value in values if value is not None and value == value]  # NaN: unknown
    kinds = {type(value) for value in known}
    if kinds <= {int, float} or kinds in ({bool}, {str}):
        return [value if value == value else None for value in values]
    return [json.dumps(value) if value is not None and value == value else None for value in values]
