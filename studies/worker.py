"""A worker: takes a trial, lets a process of its own run it, tells the study, takes the next."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from optuna.trial import TrialState

from studies.config import study_folder
from studies.queue import claim_trial, release_stale_trials
from studies.results import list_runs
from studies.storage import patiently
from studies.study import OpenStudy
from studies.trial_run import TrialRun, WorkerSettings

__all__ = ["Worker", "is_worker_dead", "say_to_stderr", "worker_lock", "worker_name"]

WAIT_SECONDS = 2.0


class Worker:
    """Works through a study's queue until it is empty.

    Args:
        opened: The study.
        settings: How to compute.
        say: Is told what happens, in lines.
    """

    def __init__(
        self, opened: OpenStudy, settings: WorkerSettings, say: Callable[[str], None]
    ) -> None:
        self.opened = opened
        self.settings = settings
        self.say = say
        self.name = worker_name()
        self._signal_name: str | None = None

    def run(self) -> bool:
        """Works until every slot is filled; returns False if it was asked to stop before.

        A worker with nothing to take waits for the trials of the others: one may die.

        Raises:
            DiskFullError: If there is no room to write.
            StorageError: If the storage is away for too long.
        """
        with worker_lock(self.folder, self.name), self._stop_on_signals():
            while self._signal_name is None:
                patiently(lambda: release_stale_trials(self.opened), on_wait=self.say)
                trial = patiently(
                    lambda: claim_trial(self.opened, self.name),
                    on_wait=self.say,
                )
                if trial is not None:
                    TrialRun(self.opened, trial, self.settings, self._is_stopping, self.say).run()
                    patiently(lambda: list_runs(self.opened, self.folder), on_wait=self.say)
                elif patiently(self._is_anything_running, on_wait=self.say):
                    time.sleep(WAIT_SECONDS)
                else:
                    return True
        self.say(f"{self._signal_name}: stopped; the same command goes on")
        return False

    def _is_stopping(self) -> bool:
        return self._signal_name is not None

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return study_folder(self.settings.runs_dir, self.opened.config.name)

    def _is_anything_running(self) -> bool:
        return bool(self.opened.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._signal_name = signal.Signals(number).name

        before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def worker_name() -> str:
    """Returns a name for a worker of this process: its host, its process and a number."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def _lock_path(folder: Path, worker: str) -> Path:
    return folder / "workers" / f"{worker}.lock"


@contextmanager
def worker_lock(folder: Path, worker: str) -> Iterator[None]:
    """Holds a file for as long as this process lives, so that others can tell whether it does."""
    path = _lock_path(folder, worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)


def is_worker_dead(folder: Path, worker: str) -> bool:
    """Whether a worker of this host is known to be dead.

    False for those of other hosts, whose locks need not be seen here: their heartbeats decide.
    """
    if worker.rsplit("-", 2)[0] != socket.gethostname():  # a host's name may hold dashes too
        return False
    try:
        with _lock_path(folder, worker).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):  # it ended well, or it lives
        return False
    return True


def say_to_stderr(line: str) -> None:
    """Writes a line, with the time, for the log of a worker."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
