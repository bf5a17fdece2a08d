"""How far runs are, read from their folders while others write them; nothing is written here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from nasbench_at.records.metrics import read_whole_metrics
from nasbench_at.records.record import read_record
from nasbench_at.records.run_folders import RunFolder, StudyRuns, find_runs, open_run_folder

__all__ = ["FollowedRuns", "RunProgress", "RunState"]

RunState: TypeAlias = Literal["running", "waiting", "interrupted", "done"]

_STATES: tuple[RunState, ...] = get_args(RunState)  # in the order in which they are shown
_FIRST_SESSION_SECONDS = 5.0
"""A run that never stopped takes its lock this soon after its configuration was written."""
_NUM_PACES = 5
"""Epochs over which their time is averaged."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    Attributes:
        path: Its folder.
        state: running, while a process holds the folder; waiting, before the first step;
            interrupted, if it began and no process holds it; done, once there is a record.
        epoch: Epochs finished.
        num_epochs: Epochs it is to have.
        train_loss: Mean loss of the last epoch's training images; None before there is one.
        natural: Accuracy on held-out images after the last epoch.
        best_natural: The highest of all epochs.
        robust: Accuracy under PGD on held-out images after the last epoch.
        best_robust: The highest of all epochs.
        seconds_per_epoch: How long an epoch takes; None before that can be told.
        seconds_left: How long a running run is still going to take.
    """

    path: Path
    state: RunState
    epoch: int
    num_epochs: int
    train_loss: float | None = None
    natural: float | None = None
    best_natural: float | None = None
    robust: float | None = None
    best_robust: float | None = None
    seconds_per_epoch: float | None = None
    seconds_left: float | None = None


class FollowedRuns:
    """The runs of some folders, looked at again and again.

    Runs that were done before the first look are counted and left alone. A study's folder stands
    for its finished runs and, until the study is finished, for all runs that lie where its own do:
    which of them are its own is known to its database alone.

    Args:
        places: Folders of runs, of studies, or of one run.

    Raises:
        ValueError: If one is no such folder or cannot be read.

    Attributes:
        num_unreadable: How many folders the last look could not read.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        self._found = {place: _find(place) for place in places}
        self._done_before = {path for path in self._paths() if _has_record(path)}
        self._runs: dict[Path, _FollowedRun] = {}
        self._num_looks_when_all_done = 0
        self._any_was_seen = False
        self.num_unreadable = 0

    @property
    def num_done_before(self) -> int:
        """How many runs were done before the first look."""
        return len(self._done_before)

    @property
    def are_over(self) -> bool:
        """Whether there were runs, and nothing is left to wait for.

        One look that finds all done is not enough where runs were followed: the next seed's or
        trial's run takes a moment to begin.
        """
        was_followed = bool(self._runs)
        return self._any_was_seen and self._num_looks_when_all_done > was_followed

    def look(self) -> list[RunProgress]:
        """Returns how far the runs are, the running ones first, then by path.

        What has vanished is left out, and so is what cannot be read.
        """
        for place in self._found:
            try:
                self._found[place] = _find(place)
            except ValueError:  # a folder in it has vanished, or a study's run: seen next time
                continue
        paths = self._paths()
        self._done_before.intersection_update(path for path in paths if path.exists())
        followed = [path for path in paths if path not in self._done_before]
        self._runs = {path: self._runs.get(path) or _FollowedRun(path) for path in followed}
        seen = [run.look() for run in self._runs.values()]
        progress = [one for one in seen if one is not None]
        self.num_unreadable = len(seen) - len(progress)
        self._any_was_seen |= bool(progress or self._done_before)
        are_done = all(run.state == "done" for run in progress) and not self._has_open_study()
        self._num_looks_when_all_done = self._num_looks_when_all_done + 1 if are_done else 0
        return sorted(progress, key=lambda run: (_STATES.index(run.state), run.path))

    def _paths(self) -> list[Path]:
        # A study's runs are found by whole paths, those of a folder as the folder was written.
        found = [path for paths in self._found.values() for path in paths]
        return list({path.absolute(): path for path in reversed(found)}.values())[::-1]

    def _has_open_study(self) -> bool:
        folders = (
            folder
            for place in self._found
            for folder in (place, *sorted((place / "studies").glob("*")))
        )
        return any(map(_is_open_study, folders))


class _FollowedRun:
    """A run's folder, of which only what has changed is read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder: RunFolder | None = None
        self._signature: tuple[int, ...] | None = None
        self._rows: list[dict[str, Any]] = []
        self._pace = _Pace()
        self._done: RunProgress | None = None

    def look(self) -> RunProgress | None:
        """Returns how far the run is; None if the folder is gone or its configuration damaged."""
        try:
            self._folder = self._folder or open_run_folder(self.path)
        except (OSError, ValueError):
            return None
        folder = self._folder
        is_held = folder.is_held  # before the record is looked for, which is written while it is
        if not (self.path / "config.yaml").exists():
            return None
        if folder.record.exists():
            return self._finish(folder)
        written = self._read_metrics(folder)
        if is_held:
            return self._describe(folder, "running", written)
        return self._describe(folder, "waiting" if written is None else "interrupted", written)

    def _finish(self, folder: RunFolder) -> RunProgress:
        if self._done is None:
            written = self._read_metrics(folder)
            self._done = self._describe(folder, "done", written)
        return self._done

    def _read_metrics(self, folder: RunFolder) -> float | None:
        """Reads the metrics, if they are others now; returns when they were written."""
        try:
            found = folder.metrics.stat()
        except OSError:
            return None
        signature = (found.st_ino, found.st_mtime_ns, found.st_size)
        if signature != self._signature:
            self._signature = signature
            self._rows = read_whole_metrics(folder.metrics)
        return found.st_mtime

    def _describe(self, folder: RunFolder, state: RunState, written: float | None) -> RunProgress:
        rows = self._rows
        epoch, num_epochs = len(rows), folder.config.epochs
        seconds = _seconds_of(folder) if state == "done" else self._pace.of(folder, epoch, written)
        if not rows:
            return RunProgress(self.path, state, 0, num_epochs)
        return RunProgress(
            self.path,
            state,
            epoch,
            num_epochs,
            train_loss=rows[-1].get("train_loss"),
            natural=rows[-1]["validation_natural"],
            best_natural=max(row["validation_natural"] for row in rows),
            robust=rows[-1]["validation_robust"],
            best_robust=max(row["validation_robust"] for row in rows),
            seconds_per_epoch=seconds,
            seconds_left=_left(seconds, num_epochs - epoch, written)
            if state == "running"
            else None,
        )


class _Pace:
    """How long a run's epochs take, told from when its metrics were written.

    Only of the process that works on it now: the time between two processes is no epoch's.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._marks: deque[tuple[int, float]] = deque(maxlen=1 + _NUM_PACES)

    def of(self, folder: RunFolder, epoch: int, written: float | None) -> float | None:
        """Takes note of the epochs that are finished; returns the seconds of one, once known."""
        try:
            begun = folder.lock.stat().st_mtime
            created = (folder.path / "config.yaml").stat().st_mtime
        except OSError:
            return None
        if begun != self._begun:
            self._begun = begun
            self._marks.clear()
            if begun - created < _FIRST_SESSION_SECONDS:
                self._marks.append((0, begun))
        # What was written before belongs to the process before.
        if written is not None and written >= begun and epoch not in dict(self._marks):
            self._marks.append((epoch, written))
        if len(self._marks) < 2:
            return None
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (end - start) / (last - first)


def _left(seconds: float | None, num_epochs: int, written: float | None) -> float | None:
    """Seconds until so many epochs are over, the first of which began when a line was written."""
    if seconds is None or written is None or num_epochs == 0:
        return None
    passed = min(max(0.0, time.time() - written), seconds)  # it may take longer than the others
    return seconds * num_epochs - passed


def _seconds_of(folder: RunFolder) -> float | None:
    try:
        record = read_record(folder.record)
        return float(record.provenance["train_seconds"]) / int(record.training["epochs"])
    except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError):
        return None


def _find(place: Path) -> list[Path]:
    """Returns the folders of the runs that a place stands for.

    Raises:
        ValueError: If the place is no folder, or a folder in it cannot be read.
    """
    return find_runs(place.resolve().parent.parent if _is_open_study(place) else place)


def _is_open_study(folder: Path) -> bool:
    """Whether a folder is that of a study which may get more runs."""
    if not (folder / "study.yaml").is_file():
        return False
    try:
        study = StudyRuns.read(folder)
    except ValueError:
        return True
    return study is None or not study.is_finished


def _has_record(path: Path) -> bool:
    return (path / "record.json").exists()
