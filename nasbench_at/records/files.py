"""Files with a line a record."""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from nasbench_at.records.record import Record
from nasbench_at.records.validation import parse
from nasbench_at.runtime.atomic_files import naming_file, write_atomically

__all__ = ["OnBroken", "append_record", "read_lines", "write_lines"]


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
    write_atomically(path, "".join(map(_to_line, records)).encode())


def append_record(path: str | Path, record: Record) -> None:
    """Adds a record to a ``.jsonl`` file, which is created if there is none.

    Several processes may do so at once: each holds the file while it writes its line. A line that
    was cut short, because whoever wrote it was killed, is removed.

    Raises:
        ValueError: If the suffix is another.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise ValueError(f"records are appended to a .jsonl file, got {str(path)!r}")
    line = _to_line(record).encode()
    with naming_file(path), path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_mend_end(file) + line)
        file.flush()
        os.fsync(file.fileno())


def _mend_end(file: IO[bytes]) -> bytes:
    """Cuts off an unfinished last line; returns what must come before the next one."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return b""
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return b""
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _is_json(content[start:]):  # whole, but for its end
        return b"\n"
    file.truncate(start)
    return b""


def _to_line(record: Record) -> str:
    return json.dumps(record.to_dict()) + "\n"


def _is_json(text: str | bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
