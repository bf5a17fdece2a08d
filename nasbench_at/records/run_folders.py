"""A run's folder: what lies where, written whole or not at all, one process at a time.

A study's folder, ``<runs-dir>/studies/<name>``, only says which of the runs are its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nasbench_at.config import ResolvedConfig, dump_config, load_config
from nasbench_at.records.places import find_table, shipped_tables
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = [
    "FolderInUseError",
    "RunFolder",
    "StudyRuns",
    "create_run_folder",
    "find_runs",
    "open_run_folder",
]


class FolderInUseError(ValueError):
    """Another process works in the run's folder."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files.

    Attributes:
        path: The folder, ``<runs-dir>/<run-id>``.
        config: Everything needed to repeat the run.
    """

    path: Path
    config: ResolvedConfig

    @property
    def record(self) -> Path:
        """Results and provenance, JSON."""
        return self.path / "record.json"

    @property
    def metrics(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        """Weights of the selected epoch, safetensors."""
        return self.path / "best.safetensors"

    @property
    def checkpoint(self) -> Path:
        """State at the end of the last finished epoch."""
        return self.path / "last.pt"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder; written when one begins to."""
        return self.path / ".lock"

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes the whole history, so that no line can be missing or doubled."""
        lines = (json.dumps(row) + "\n" for row in rows)
        write_atomically(self.metrics, "".join(lines).encode())

    @contextmanager
    def locked(self, hold: bool = True) -> Iterator[None]:
        """Holds the folder for this process until the block ends or the process dies.

        Args:
            hold: False for the ranks that another process holds the folder for.

        Raises:
            FolderInUseError: If another process holds it.
        """
        if not hold:
            yield
            return
        with self.lock.open("w") as file:
            if not any(map(_takes_lock, [file] * _LOCK_TRIES)):
                raise FolderInUseError(
                    f"run folder {str(self.path)!r} is in use by another process"
                )
            yield

    @property
    def is_held(self) -> bool:
        """Whether a process works in the folder.

        Only the system knows, and says it to who tries: this takes the lock for an instant, shared
        with others who look. Nothing is written.
        """
        try:
            with self.lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is no folder, or none that anybody has worked in
            return False
        return False


_LOCK_TRIES = 10
_LOCK_PAUSE = 0.02


def _takes_lock(file: IO[str]) -> bool:
    """Tries to take a lock; pauses where it fails, as somebody may only be looking at it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_LOCK_PAUSE)
        return False
    return True


def create_run_folder(runs_dir: str | Path, config: ResolvedConfig) -> RunFolder:
    """Creates the folder of a configuration, or returns the one that is there.

    Args:
        runs_dir: Where runs land.
        config: The configuration; the folder's is told where its files lie now.

    Raises:
        ValueError: If the folder cannot be written, or holds another configuration.
    """
    path = Path(runs_dir) / config.run_id
    folder = RunFolder(path, config)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ".lock").touch()
    except OSError as error:
        raise ValueError(f"cannot write to run folder {str(path)!r}: {error.strerror}") from None
    file = path / "config.yaml"
    stored = ResolvedConfig.of(load_config(file)) if file.exists() else None
    if stored is not None and stored.identity() != config.identity():
        raise ValueError(
            f"run folder {str(path)!r} belongs to another configuration; move it away or choose "
            "another --runs-dir"
        )
    if stored != config:  # a new run, or one whose plugins or data lie elsewhere now
        write_atomically(file, dump_config(config).encode())
    return folder


def open_run_folder(path: str | Path) -> RunFolder:
    """Opens an existing run's folder.

    Raises:
        ValueError: If it is none.
    """
    file = Path(path) / "config.yaml"
    if not file.is_file() and find_table(str(path)) is not None:
        raise ValueError(f"a run's folder is needed, with its weights; {str(path)!r} is a table")
    if not file.is_file():
        raise ValueError(f"{str(path)!r} is no run folder: it holds no config.yaml")
    config = load_config(file)
    try:
        return RunFolder(Path(path), ResolvedConfig.of(config))
    except ValueError as error:
        raise ValueError(f"configuration {str(file)!r}: {error}") from None


@dataclass(frozen=True)
class StudyRuns:
    """The runs of a study, as its folder lists them in ``runs.json``.

    Attributes:
        run_ids: The runs that are finished.
        is_finished: Whether no more will come.
        summary: A line about the study.
    """

    run_ids: tuple[str, ...]
    is_finished: bool
    summary: str = ""

    def write(self, folder: Path) -> None:
        """Writes the list into a study's folder."""
        content = {
            "runs": self.run_ids,
            "finished": self.is_finished,
            "summary": self.summary,
        }
        write_atomically(folder / _STUDY_RUNS, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> StudyRuns | None:
        """Reads the list; None if the folder is no study's.

        Raises:
            ValueError: If the list cannot be read.
        """
        path = folder / _STUDY_RUNS
        if not path.is_file():
            return None
        # Imported here: the command line, which imports this module, answers without.
        from nasbench_at.records.study_file import read_study_file

        content = read_study_file(path)
        return cls(tuple(content["runs"]), content["finished"], content.get("summary", ""))

    def folders(self, folder: Path) -> list[Path]:
        """Returns where the runs lie: beside the folder of the studies."""
        return [folder.resolve().parent.parent / run_id for run_id in self.run_ids]


_STUDY_RUNS = "runs.json"


def find_runs(path: str | Path, *, models: bool = False) -> list[Path]:
    """Returns the folders of runs, finished or not, that a path stands for.

    Args:
        path: A run's folder, a study's, or one in which runs lie at any depth, or links to them.
        models: Also those that hold a record alone, as evaluations of users' models do.

    Raises:
        ValueError: If the path is no folder, a folder in it cannot be read, or a run that a study
            lists is missing.
    """
    path = Path(path)
    if not path.is_dir():
        tables = ", ".join(shipped_tables()) or "none"
        raise ValueError(
            f"{str(path)!r} is no folder of runs; tables that come with the package: {tables}"
        )
    study = StudyRuns.read(path)
    if study is None:
        return _find_below(path, models)
    for folder in study.folders(path):
        if not (folder / "config.yaml").exists():
            raise ValueError(f"run {folder.name!r} of study {path.name!r} is missing")
    return study.folders(path)


def _find_below(path: Path, models: bool) -> list[Path]:
    """Finds runs below a folder, in the order of their paths.

    Links come last, so that a run in the folder has the path that is no link.
    """
    links: list[str] = []
    seen: set[tuple[int, int]] = set()
    found = list(_walk(str(path), models, seen, links))
    for link in links:  # which grow meanwhile
        try:
            found += list(_walk(link, models, seen, links))
        except ValueError as error:
            warnings.warn(f"left out link {link!r}: {error}", stacklevel=3)
    return sorted(map(Path, found))


def _walk(folder: str, models: bool, seen: set[tuple[int, int]], links: list[str]) -> Iterator[str]:
    """Yields the folders of runs; a run's own holds no others.

    Folders that were ``seen`` before are none; links to others are added to ``links``.
    """
    try:
        status = os.stat(folder)  # noqa: PTH116  thousands of folders, and a Path costs as much
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"cannot read folder {folder!r}: {error.strerror}") from None
    place = status.st_dev, status.st_ino
    if place in seen:
        return
    seen.add(place)
    names = {entry.name for entry in entries}
    is_run = "config.yaml" in names
    if is_run or (models and "record.json" in names):
        yield folder
    if is_run:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, models, seen, links)
        elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112  a Path's may raise
            links.append(entry.path)
