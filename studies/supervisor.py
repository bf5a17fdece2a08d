"""`run_study`: creates a study, starts its workers, watches over them, returns what came out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from optuna.trial import TrialState

from studies.config import StudyConfig, study_folder
from studies.lifeline import LIFELINE_VARIABLE, lifeline
from studies.queue import fill_queue, release_stale_trials, release_worker
from studies.results import StudyResult, StudyStatus, list_runs
from studies.storage import STORAGE_VARIABLE, patiently, storage_url
from studies.study import OpenStudy, create_or_open_study, quiet_optuna
from studies.trial_run import WorkerSettings
from studies.worker import is_worker_dead

__all__ = [
    "StudyInterruptedError",
    "create_study",
    "release_dead_workers",
    "run_study",
    "work_through",
]

MAX_RESTARTS = 3
POLL_SECONDS = 0.5
STATUS_SHARE = 0.02
"""Part of the time that reading the status may take, which grows with the study."""

OnStatus = Callable[[StudyStatus], None]


class StudyInterruptedError(Exception):
    """The study was stopped before its queue was empty; the same call goes on."""


def run_study(
    config: StudyConfig,
    *,
    workers: int = 1,
    runs_dir: str | Path = "runs",
    storage: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    ranks: int = 1,
    any_code: bool = False,
    on_status: OnStatus | None = None,
) -> StudyResult:
    """Runs what is left of a study and returns its results.

    Runs that are in ``runs_dir`` already, from this study or from anything else, are not repeated.
    Killed at any instant and called again, it goes on: trials resume their own checkpoints.

    Args:
        config: The study, as a recipe returns it.
        workers: Processes that work at the same time; with GPUs, each gets one.
        runs_dir: Where runs lie; the study's folder is ``<runs_dir>/studies/<name>``.
        storage: URL of a database; by default SQLite in the study's folder.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        ranks: Processes that train one trial together.
        any_code: Go on although the study was begun with other code.
        on_status: Is told how it goes, twice a second.

    Raises:
        ValueError: If the study, the storage or an argument is not usable.
        StudyInterruptedError: If it was asked to stop, or workers kept dying.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    root = None if data_root is None else Path(data_root)
    settings = WorkerSettings(Path(runs_dir), root, device, ranks)
    opened = create_study(
        config, runs_dir=runs_dir, storage=storage, data_root=data_root, any_code=any_code
    )
    return work_through(opened, settings, workers=workers, any_code=any_code, on_status=on_status)


def work_through(
    opened: OpenStudy,
    settings: WorkerSettings,
    *,
    workers: int = 1,
    any_code: bool = False,
    on_status: OnStatus | None = None,
) -> StudyResult:
    """Runs what is left of a study that was created; as :func:`run_study`, after its checks.

    Args:
        opened: The study, as :func:`create_study` returns it.
        settings: How to compute.
        workers: Processes that work at the same time.
        any_code: Go on although the study was begun with other code.
        on_status: Is told how it goes, twice a second.

    Raises:
        StudyInterruptedError: If it was asked to stop, or workers kept dying.
    """
    folder = study_folder(settings.runs_dir, opened.config.name)
    with quiet_optuna():
        release_dead_workers(opened, folder)
        if not StudyStatus.of(opened).is_finished:
            with lifeline() as pipe:
                _Supervisor(opened, settings, pipe, any_code).run(workers, on_status)
        if on_status is not None:
            on_status(StudyStatus.of(opened))
        result = StudyResult.of(opened, settings.runs_dir)
        list_runs(opened, folder, result.compute().describe())
        return result


def create_study(
    config: StudyConfig,
    *,
    runs_dir: str | Path = "runs",
    storage: str | None = None,
    data_root: str | Path | None = None,
    any_code: bool = False,
) -> OpenStudy:
    """Creates a study and its queue, or opens the same one; arguments as in :func:`run_study`.

    Raises:
        ValueError: If the study or the storage is not usable.
    """
    with quiet_optuna():
        opened = create_or_open_study(
            config,
            storage_url(storage, study_folder(runs_dir, config.name)),
            runs_dir=Path(runs_dir),
            data_root=None if data_root is None else Path(data_root),
            any_code=any_code,
        )
        fill_queue(opened)
    return opened


def release_dead_workers(opened: OpenStudy, folder: Path) -> int:
    """Queues the trials again that dead workers held; returns how many."""
    running = opened.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    workers = {trial.user_attrs.get("worker") for trial in running} - {None}
    dead = [name for name in workers if is_worker_dead(folder, str(name))]
    return sum(release_worker(opened, str(name)) for name in dead) + release_stale_trials(opened)


@dataclass
class _Supervisor:
    """Keeps a number of workers at work.

    Attributes:
        opened: The study.
        settings: How workers compute.
        pipe: By which they notice that this process is gone.
        any_code: Whether they go on with a study that was begun with other code.
        processes: The workers by their place.
        restarts: How often each was started again.
    """

    opened: OpenStudy
    settings: WorkerSettings
    pipe: int
    any_code: bool
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    restarts: dict[int, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The study's folder; workers' logs go there."""
        return study_folder(self.settings.runs_dir, self.opened.config.name)

    def run(self, workers: int, on_status: OnStatus | None) -> None:
        with self._forward_signals() as stopping:
            for place in range(workers):
                self._start(place, workers)
            next_status = 0.0
            try:
                while self.processes:
                    self._tend(workers, stopping)
                    begun = time.monotonic()
                    if on_status is not None and begun >= next_status:
                        on_status(patiently(lambda: StudyStatus.of(self.opened)))
                        next_status = begun + (time.monotonic() - begun) / STATUS_SHARE
                    time.sleep(POLL_SECONDS)
            finally:
                for process in self.processes.values():
                    process.terminate()
        status = StudyStatus.of(self.opened)
        if not status.is_finished:
            signal_name = f"{stopping[0]}: " if stopping else ""
            raise StudyInterruptedError(
                f"{signal_name}study {self.opened.config.name!r} stopped with {status.num_done} of "
                f"{status.num_trials} trials done; logs are in {str(self.folder / 'logs')!r}"
            )

    def _start(self, place: int, workers: int) -> None:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"worker-{place}.log").open("ab") as log:
            self.processes[place] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "nasbench_at", "study", "worker"),
                    *(self.opened.config.name, *self._words()),
                ],
                env={
                    **os.environ,
                    **_share(self.settings, place, workers),
                    STORAGE_VARIABLE: self.opened.storage.url,
                    LIFELINE_VARIABLE: str(self.pipe),
                },
                pass_fds=(self.pipe,),
                stdout=log,
                stderr=log,
                # Ctrl-C is for the supervisor, which asks the workers to stop.
                start_new_session=True,
            )

    def _words(self) -> list[str]:
        """A worker's flags; not its storage, whose password no list of processes may show."""
        settings = self.settings
        return [
            *("--runs-dir", str(settings.runs_dir), "--device", settings.device),
            *("--ranks", str(settings.ranks)),
            *([] if settings.data_root is None else ["--data-root", str(settings.data_root)]),
            *(["--any-code"] if self.any_code else []),
        ]

    def _tend(self, workers: int, stopping: list[str]) -> None:
        """Takes note of workers that ended and starts those again that died."""
        for place, process in list(self.processes.items()):
            code = process.poll()
            if code is None:
                continue
            del self.processes[place]
            if code == 0 or stopping:
                continue
            patiently(lambda: release_dead_workers(self.opened, self.folder))
            self.restarts[place] = self.restarts.get(place, 0) + 1
            # One that ended by itself, with a word in its log, would do so again.
            if code < 0 and self.restarts[place] <= MAX_RESTARTS:
                self._start(place, workers)

    @contextmanager
    def _forward_signals(self) -> Iterator[list[str]]:
        stopping: list[str] = []
        if threading.current_thread() is not threading.main_thread():
            yield stopping  # only the main thread may receive signals
            return

        def stop(number: int, frame: FrameType | None) -> None:
            stopping.append(signal.Signals(number).name)
            for process in self.processes.values():
                process.terminate()

        before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield stopping
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _share(settings: WorkerSettings, place: int, workers: int) -> Mapping[str, str]:
    """What tells a worker its share of the machine: a GPU a rank, or a part of the cores."""
    if settings.device in ("auto", "cuda") and torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
        first = place * settings.ranks
        own = [gpus[(first + rank) % len(gpus)] for rank in range(settings.ranks)]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        return {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // workers, 1))}
    return {}
