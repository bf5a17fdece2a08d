"""Files with a line a record: its keys, and beside them what it measured."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nasbench_at.records.measurements import MEASURED, Measurements, StoredMeasurements
from nasbench_at.records.record import Record
from nasbench_at.records.validation import parse
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["OnBroken", "StoredRecord", "read_lines", "write_lines"]


OnBroken = Callable[[ValueError], None]
"""What is to happen with a record that cannot be read, while the others are."""
StoredRecord = tuple[Record, Measurements | None]
"""A record, and what it measured, where that is known."""


def read_lines(path: Path, on_broken: OnBroken) -> Iterator[StoredRecord]:
    """Yields the records of a file with a JSON object a line, and what they measured.

    A last line that was cut short, because whoever wrote it was killed, is skipped with a warning.

    Args:
        path: The file.
        on_broken: Called with the error of each other line that cannot be read.

    Raises:
        ValueError: If the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read records {str(path)!r}: {error.strerror}") from None
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not _is_json(line):
            if line:
                warnings.warn(
                    f"skipped line {number} of {str(path)!r}, the last, which was cut short",
                    stacklevel=2,
                )
            return
        try:
            content = parse(line)
            is_object = isinstance(content, dict)
            measured = {k: content.pop(k) for k in MEASURED if k in content} if is_object else {}
            record = Record.from_dict(content)
        except ValueError as error:
            on_broken(ValueError(f"cannot read line {number} of {str(path)!r}: {error}"))
        else:
            yield record, StoredMeasurements(record, measured) if measured else None


def write_lines(path: Path, rows: Iterable[StoredRecord]) -> None:
    """Writes records to a file, a line each, in place of what is there.

    Args:
        path: The file.
        rows: Records, and what they measured.

    Raises:
        ValueError: If what a record measured cannot be read.
    """
    lines = []
    for record, found in rows:
        measured = {} if found is None else found.to_dict(record)
        known = {name: part for name, part in measured.items() if part}
        lines.append(json.dumps({**record.to_dict(), **known}) + "\n")
    write_atomically(path, "".join(lines).encode())


def _is_json(text: str | bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
