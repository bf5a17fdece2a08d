"""Where records lie: folders of runs, and files of a line a record."""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from nasbench_at.files import naming_file, write_atomically
from nasbench_at.records.record import Record, read_record
from nasbench_at.runs import StudyRuns

__all__ = ["append_record", "read_lines", "read_runs", "write_lines"]


def read_runs(path: Path) -> Iterator[tuple[Record, Path]]:
    """Yields the records of the runs below a folder, in the order of their paths, or of a study.

    Runs without a record, such as those that still train, are passed over.

    Yields:
        A record, and the folder it lies in.

    Raises:
        ValueError: If the path is no folder, or a folder or record cannot be read.
    """
    if not path.is_dir():
        raise ValueError(f"{str(path)!r} is no folder of runs")
    study = StudyRuns.read(path)
    folders = _find_folders(str(path)) if study is None else map(str, study.folders(path))
    for folder in folders:
        yield read_record(f"{folder}/record.json"), Path(folder)


def _find_folders(folder: str) -> Iterator[str]:
    """Yields the folders that hold a record; a run's own folder holds no other runs."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"cannot read folder {folder!r}: {error.strerror}") from None
    names = {entry.name for entry in found}
    if "record.json" in names:
        yield folder
    if "config.yaml" in names:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _find_folders(entry.path)


def read_lines(path: Path) -> Iterator[Record]:
    """Yields the records of a file with a JSON object a line.

    A last line that was cut short, because whoever wrote it was killed, is skipped with a warning.

    Raises:
        ValueError: If the file or another of its lines cannot be read.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read records {str(path)!r}: {error}") from None
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not _is_json(line):
            if line:
                warnings.warn(
                    f"skipped line {number} of {str(path)!r}, the last, which was cut short",
                    stacklevel=2,
                )
            return
        try:
            yield Record.from_json(line)
        except ValueError as error:
            raise ValueError(f"cannot read line {number} of {str(path)!r}: {error}") from None


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
        json.loads(text)
    except ValueError:
        return False
    return True
