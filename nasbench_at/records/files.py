"""Files with a line a record."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nasbench_at.records.record import Record
from nasbench_at.records.validation import parse
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["OnBroken", "read_lines", "write_lines"]


OnBroken = Callable[[ValueError], None]
"""What is to happen with a record that cannot be read, while the others are."""


def read_lines(path: Path, on_broken: OnBroken) -> Iterator[Record]:
    """Yields the records of a file with a JSON object a line.

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
            record = Record.from_json(line)
        except ValueError as error:
            on_broken(ValueError(f"cannot read line {number} of {str(path)!r}: {error}"))
        else:
            yield record


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Writes records to a file, a line each, in place of what is there."""
    lines = (json.dumps(record.to_dict()) + "\n" for record in records)
    write_atomically(path, "".join(lines).encode())


def _is_json(text: str | bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
