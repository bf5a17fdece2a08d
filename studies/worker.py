"""A worker: takes a trial, lets a process of its own run it, tells the study, takes the next."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState

from nasbench_at.config import RunConfig
from nasbench_at.presets import resolve
from nasbench_at.records import Record, read_record
from studies.config import Objective, study_folder
from studies.queue import claim_trial, fail_and_requeue, release_stale_trials
from studies.results import list_runs
from studies.storage import StorageError, heartbeat, patiently
from studies.study import OpenStudy
from studies.suggestion import Suggestion, suggest_run
from studies.trial_process import TrialJob, TrialProcess, is_evaluated, screening_config

__all__ = ["DiskFullError", "Worker", "WorkerSettings", "is_worker_dead"]

POLL_SECONDS = 0.1
WAIT_SECONDS = 2.0


class DiskFullError(OSError):
    """There is no room to write; the trial waits in the queue."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker computes; nothing of it decides a result.

    Attributes:
        runs_dir: Where runs lie.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        ranks: Processes that train a trial together.
    """

    runs_dir: Path = Path("runs")
    data_root: Path | None = None
    device: str = "auto"
    ranks: int = 1


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
        self.config = opened.config
        self.study = opened.study
        self.storage = opened.storage
        self.images = opened.images
        self.settings = settings
        self.say = say
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._stopping = False

    def run(self) -> bool:
        """Works until every slot is filled; returns False if it was asked to stop before.

        A worker with nothing to take waits for the trials of the others: one may die.

        Raises:
            DiskFullError: If there is no room to write.
            StorageError: If the storage is away for too long.
        """
        with _worker_lock(self.folder, self.name), self._stop_on_signals():
            while not self._stopping:
                patiently(lambda: release_stale_trials(self.opened), on_wait=self.say)
                trial = patiently(
                    lambda: claim_trial(self.opened, self.name),
                    on_wait=self.say,
                )
                if trial is not None:
                    self._run_trial(trial)
                    patiently(lambda: list_runs(self.opened, self.folder), on_wait=self.say)
                elif patiently(self._is_anything_running, on_wait=self.say):
                    time.sleep(WAIT_SECONDS)
                else:
                    return True
        return False

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return study_folder(self.settings.runs_dir, self.config.name)

    def _is_anything_running(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_trial(self, trial: optuna.Trial) -> None:
        with heartbeat(self.storage, trial._trial_id):
            try:
                suggestion = patiently(
                    lambda: suggest_run(self.config, trial, self.images), on_wait=self.say
                )
            except StorageError:
                raise
            except ValueError as error:
                # The sampler chose what cannot be built, such as a budget that no width meets.
                self._note(trial, error=f"no network: {error}")
                self._tell(trial, state=TrialState.PRUNED)
                return
            self._note(trial, run_id=suggestion.config.run_id, num_params=suggestion.num_params)
            self.say(f"trial {trial.number}: {suggestion.config.run_id}")
            if self._is_over_budget(trial, suggestion):
                self._tell(trial, state=TrialState.PRUNED)
            elif self._passes_screening(trial, suggestion.config):
                self._run_config(trial, suggestion.config)

    def _is_over_budget(self, trial: optuna.Trial, suggestion: Suggestion) -> bool:
        if suggestion.excess is None:
            return False
        excess = suggestion.excess
        patiently(lambda: trial.set_constraint("parameters", excess), on_wait=self.say)
        return excess > 0

    def _passes_screening(self, trial: optuna.Trial, config: RunConfig) -> bool:
        """Runs the first rung, where there is one; what does not pass is pruned."""
        screening = self.config.space and self.config.space.screening
        if not screening:
            return True
        cheap = resolve(screening_config(config, screening.epochs, screening.attack_steps))
        record = self._finish_run(trial, cheap, attacks=(), report=False)
        if record is None:
            return False
        score = float(record.training["selected"]["validation_robust"])
        others = [
            other.user_attrs["screened"]
            for other in self.study.get_trials(deepcopy=False)
            if "screened" in other.user_attrs and other.number != trial.number
        ]
        self._note(trial, screened=score)
        if sum(other > score for other in others) < screening.keep * (len(others) + 1):
            return True
        self._tell(trial, state=TrialState.PRUNED)
        return False

    def _run_config(self, trial: optuna.Trial, config: RunConfig) -> None:
        record = self._finish_run(trial, config, self.config.attacks, report=True)
        if record is None:
            return
        space = self.config.space
        if space is not None and space.max_seconds_per_step is not None:
            excess = _objective(record, "seconds_per_step") / space.max_seconds_per_step - 1
            patiently(lambda: trial.set_constraint("seconds_per_step", excess), on_wait=self.say)
        values = [_objective(record, name) for name in self.config.objectives]
        self._tell(trial, values=values)

    def _finish_run(
        self, trial: optuna.Trial, config: RunConfig, attacks: tuple[str, ...], *, report: bool
    ) -> Record | None:
        """Returns the run's record, from its folder or by running it; None if the trial ended."""
        job = self._job(trial, config, attacks)
        record = _find_record(job)
        if record is not None:
            self._note(trial, from_records=True)
            return record
        process = TrialProcess(job)
        watch = _MetricsWatch(job.folder / "metrics.jsonl")
        prunes = report and self.config.pruner != "none" and len(self.config.objectives) == 1
        pruned = False
        while not process.wait(POLL_SECONDS):
            if prunes and not pruned and self._reports_say_prune(trial, watch):
                pruned = True
                process.stop()
            elif self._stopping:
                process.stop()
        if process.resumed_from is not None:
            self._note(trial, resumed_from=process.resumed_from)
        if prunes and not pruned and process.outcome.kind == "done":
            # A fast run may end between two looks.
            pruned = self._reports_say_prune(trial, watch)
        if pruned:
            self._note(trial, epochs=len(watch.rows))
            self._tell(trial, state=TrialState.PRUNED)
            return None
        return self._result_of(trial, process, job)

    def _result_of(
        self, trial: optuna.Trial, process: TrialProcess, job: TrialJob
    ) -> Record | None:
        outcome = process.outcome
        match outcome.kind:
            case "done":
                return read_record(job.folder / "record.json")
            case "interrupted" | "disk_full" | "out_of_memory":
                self._requeue(trial, outcome.message)
            case "failed":
                self._fail(trial, outcome.message)
        if outcome.kind == "disk_full":
            raise DiskFullError(
                f"{outcome.message}; make room, then start the same command: trial "
                f"{trial.number} waits in the queue"
            )
        return None

    def _job(self, trial: optuna.Trial, config: RunConfig, attacks: tuple[str, ...]) -> TrialJob:
        return TrialJob(
            config=config,
            runs_dir=self.settings.runs_dir,
            data_root=self.settings.data_root,
            device=self.settings.device,
            ranks=self.settings.ranks,
            attacks=attacks,
            aa_samples=self.config.aa_samples,
            log=self.folder / "logs" / f"trial-{trial.number:04}.log",
        )

    def _reports_say_prune(self, trial: optuna.Trial, watch: _MetricsWatch) -> bool:
        name = (
            "validation_natural"
            if self.config.objectives == ("natural",)
            else ("validation_robust")
        )
        for row in watch.new_rows():
            epoch, value = row["epoch"], row[name]
            patiently(lambda e=epoch, v=value: trial.report(v, e), on_wait=self.say)  # type: ignore[misc]
            if patiently(trial.should_prune, on_wait=self.say):
                return True
        return False

    def _note(self, trial: optuna.Trial, **values: Any) -> None:
        for name, value in values.items():
            if value is not None:
                patiently(
                    lambda n=name, v=value: trial.set_user_attr(n, v),  # type: ignore[misc]
                    on_wait=self.say,
                )

    def _tell(self, trial: optuna.Trial, **result: Any) -> None:
        # After an outage the trial may have been given up by others; its run is in the records.
        patiently(lambda: self.study.tell(trial, **result, skip_if_finished=True), on_wait=self.say)

    def _fail(self, trial: optuna.Trial, error: str) -> None:
        self.say(f"trial {trial.number} failed: {error}")
        self._note(trial, error=error)
        self._tell(trial, state=TrialState.FAIL)

    def _requeue(self, trial: optuna.Trial, error: str) -> None:
        self.say(f"trial {trial.number} goes back to the queue: {error}")
        patiently(lambda: fail_and_requeue(self.opened, trial._trial_id, error), on_wait=self.say)


class _MetricsWatch:
    """Reads the lines of a run's metrics as they come; the file is always whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Mapping[str, Any]] = []

    def new_rows(self) -> list[Mapping[str, Any]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text("utf-8").splitlines()
        new = [json.loads(line) for line in lines[len(self.rows) :]]
        self.rows += new
        return new


def _find_record(job: TrialJob) -> Record | None:
    """The record of a run that is finished and evaluated, which need not be run again."""
    path = job.folder / "record.json"
    if not path.exists():
        return None
    record = read_record(path)
    return record if record.training and is_evaluated(record, job.attacks) else None


def _objective(record: Record, name: Objective) -> float:
    selected = record.training["selected"]
    match name:
        case "robust":
            return float(selected["validation_robust"])
        case "natural":
            return float(selected["validation_natural"])
        case "parameters":
            return float(record.num_params)
        case "seconds_per_step":
            batch = record.config["batch_size"]
            num_steps = math.ceil(record.training["num_train"] / batch) * record.training["epochs"]
            return float(record.provenance["train_seconds"] / num_steps)


def _lock_path(folder: Path, worker: str) -> Path:
    return folder / "workers" / f"{worker}.lock"


@contextmanager
def _worker_lock(folder: Path, worker: str) -> Iterator[None]:
    """Holds a file for as long as this process lives, so that others can tell whether it does."""
    path = _lock_path(folder, worker)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)


def is_worker_dead(folder: Path, worker: str) -> bool:
    """Whether a worker of this machine is known to be dead; False for those of others."""
    path = _lock_path(folder, worker)
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def say_to_stderr(line: str) -> None:
    """Writes a line, with the time, for the log of a worker."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
