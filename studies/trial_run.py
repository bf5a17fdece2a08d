"""One trial from its parameters to its result: what a worker does between two claims."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from nasbench_at.config import ResolvedConfig, resolve
from nasbench_at.records import Record, read_record
from nasbench_at.runtime.devices import select_device
from studies.config import Objective, study_folder
from studies.queue import fail_and_requeue, latest_trials, put_back
from studies.storage import StorageError, heartbeat, patiently
from studies.study import OpenStudy
from studies.suggestion import Suggestion, suggest_run
from studies.trial_process import TrialJob, TrialProcess, is_evaluated, screening_config

__all__ = ["DiskFullError", "TrialRun", "WorkerSettings"]

POLL_SECONDS = 0.1


class DiskFullError(OSError):
    """There is no room to write; the trial waits in the queue."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker computes; of it, ranks alone change results, as several GPUs do.

    Attributes:
        runs_dir: Where runs lie.
        data_root: Where the data set's files lie.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        ranks: Processes that train a trial together; each takes a GPU where there are some.

    Raises:
        ValueError: If the device does not exist here, or there are too few for the ranks.
    """

    runs_dir: Path = Path("runs")
    data_root: Path | None = None
    device: str = "auto"
    ranks: int = 1

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ValueError(f"ranks must be at least 1, got {self.ranks}")
        device = select_device(self.device)
        if device.type == "cuda" and self.ranks > torch.cuda.device_count():
            raise ValueError(
                f"ranks must be at most the number of GPUs, {torch.cuda.device_count()}, got "
                f"{self.ranks}"
            )


@dataclass(frozen=True)
class TrialRun:
    """A claimed trial.

    Attributes:
        opened: The study.
        trial: The trial.
        settings: How to compute.
        is_stopping: Whether the worker was asked to stop.
        say: Is told what happens, in lines.
    """

    opened: OpenStudy
    trial: optuna.Trial
    settings: WorkerSettings
    is_stopping: Callable[[], bool]
    say: Callable[[str], None]

    def run(self) -> None:
        """Runs the trial and tells the study how it ended.

        Raises:
            DiskFullError: If there is no room to write.
            StorageError: If the storage is away for too long.
        """
        with heartbeat(self.opened.storage, self.trial._trial_id):
            try:
                suggestion = patiently(
                    lambda: suggest_run(self.opened.config, self.trial, self.opened.images),
                    on_wait=self.say,
                )
            except StorageError:
                raise
            except ValueError as error:
                # The sampler chose what cannot be built, such as a budget that no width meets.
                self._note(error=f"no network: {error}")
                self._tell(state=TrialState.PRUNED)
                return
            self._note(run_id=suggestion.config.run_id, num_params=suggestion.num_params)
            self.say(f"trial {self.trial.number}: {suggestion.config.run_id}")
            if self._is_over_budget(suggestion):
                self._tell(state=TrialState.PRUNED)
            elif self._passes_screening(suggestion.config):
                self._run_suggested(suggestion)

    def _is_over_budget(self, suggestion: Suggestion) -> bool:
        if suggestion.excess is None:
            return False
        excess = suggestion.excess
        patiently(lambda: self.trial.set_constraint("parameters", excess), on_wait=self.say)
        return excess > 0

    def _passes_screening(self, config: ResolvedConfig) -> bool:
        """Runs the first rung, where there is one; what does not pass is pruned."""
        screening = self.opened.config.space and self.opened.config.space.screening
        if not screening:
            return True
        screened = screening_config(config, screening.epochs, screening.attack_steps)
        cheap = replace(resolve(screened), contents=config.contents)
        record = self._finish_run(cheap, attacks=(), is_screening=True)
        if record is None:
            return False
        score = float(record.training["selected"]["validation_robust"])
        slot = self.trial.user_attrs["slot"]
        others = [
            other.user_attrs["screened"]
            for other in latest_trials(self.opened.study.get_trials(deepcopy=False))
            if "screened" in other.user_attrs and other.user_attrs["slot"] != slot
        ]
        self._note(screened=score)
        if sum(other > score for other in others) < screening.keep * (len(others) + 1):
            return True
        self._tell(state=TrialState.PRUNED)
        return False

    def _run_suggested(self, suggestion: Suggestion) -> None:
        attacks = (*self.opened.config.attacks, *suggestion.attacks)
        record = self._finish_run(suggestion.config, attacks, is_screening=False)
        if record is None:
            return
        space = self.opened.config.space
        if space is not None and space.max_seconds_per_step is not None:
            excess = _objective(record, "seconds_per_step") / space.max_seconds_per_step - 1
            patiently(
                lambda: self.trial.set_constraint("seconds_per_step", excess), on_wait=self.say
            )
        values = [_objective(record, name) for name in self.opened.config.objectives]
        self._tell(values=values)

    def _finish_run(
        self, config: ResolvedConfig, attacks: tuple[str, ...], *, is_screening: bool
    ) -> Record | None:
        """Returns the run's record, from its folder or by running it; None if the trial ended."""
        job = self._job(config, attacks)
        try:
            record = _find_record(job)
        except ValueError as error:  # a damaged file, which no other trial need suffer from
            self._fail(" ".join(str(error).split()))
            return None
        if record is not None:
            if not is_screening:  # else the full run may still have to be trained
                self._note(from_records=True)
            return record
        record = self._train(job, reports=not is_screening)
        if record is not None and is_screening:
            self._note(screening_epochs=record.training["epochs"])
        return record

    def _train(self, job: TrialJob, *, reports: bool) -> Record | None:
        """Returns the record of a run that was trained to its end; None if the trial ended."""
        process = TrialProcess(job)
        watch = _MetricsWatch(job.folder / "metrics.jsonl")
        prunes = (
            reports
            and self.opened.config.pruner != "none"
            and len(self.opened.config.objectives) == 1
        )
        pruned = False
        while not process.wait(POLL_SECONDS):
            if prunes and not pruned and self._reports_say_prune(watch):
                pruned = True
                process.stop()
            elif self.is_stopping():
                process.stop()
        if self.is_stopping() and not pruned:
            # What told the worker to stop may have ended the process, or the one it came from.
            process.stop()
        if process.resumed_from is not None:
            self._note(resumed_from=process.resumed_from)
        if prunes and not pruned and process.outcome.kind == "done":
            # A fast run may end between two looks.
            pruned = self._reports_say_prune(watch)
        if pruned:
            self._note(epochs=len(watch.rows))
            self._tell(state=TrialState.PRUNED)
            return None
        return self._result_of(process, job)

    def _result_of(self, process: TrialProcess, job: TrialJob) -> Record | None:
        outcome = process.outcome
        match outcome.kind:
            case "done":
                return read_record(job.folder / "record.json")
            case "interrupted" | "disk_full":
                self._put_back(outcome.message)
            case "out_of_memory":
                self._requeue(outcome.message)
            case "failed":
                self._fail(outcome.message)
        if outcome.kind == "disk_full":
            raise DiskFullError(
                f"{outcome.message}; make room, then start the same command: trial "
                f"{self.trial.number} waits in the queue"
            )
        return None

    def _job(self, config: ResolvedConfig, attacks: tuple[str, ...]) -> TrialJob:
        return TrialJob(
            config=config,
            runs_dir=self.settings.runs_dir,
            data_root=self.settings.data_root,
            device=self.settings.device,
            ranks=self.settings.ranks,
            attacks=attacks,
            aa_samples=self.opened.config.aa_samples,
            log=study_folder(self.settings.runs_dir, self.opened.config.name)
            / "logs"
            / f"trial-{self.trial.number:04}.log",
        )

    def _reports_say_prune(self, watch: _MetricsWatch) -> bool:
        name = (
            "validation_natural"
            if self.opened.config.objectives == ("natural",)
            else ("validation_robust")
        )
        for row in watch.new_rows():
            epoch, value = row["epoch"], row[name]
            patiently(lambda e=epoch, v=value: self.trial.report(v, e), on_wait=self.say)  # type: ignore[misc]
            if patiently(self.trial.should_prune, on_wait=self.say):
                return True
        return False

    def _note(self, **values: Any) -> None:
        for name, value in values.items():
            if value is not None:
                patiently(
                    lambda n=name, v=value: self.trial.set_user_attr(n, v),  # type: ignore[misc]
                    on_wait=self.say,
                )

    def _tell(self, **result: Any) -> None:
        # After an outage the trial may have been given up by others; its run is in the records.
        patiently(
            lambda: self.opened.study.tell(self.trial, **result, skip_if_finished=True),
            on_wait=self.say,
        )

    def _fail(self, error: str) -> None:
        self.say(f"trial {self.trial.number} failed: {error}")
        self._note(error=error)
        self._tell(state=TrialState.FAIL)

    def _put_back(self, reason: str) -> None:
        self.say(f"trial {self.trial.number} goes back to the queue: {reason}")
        patiently(lambda: put_back(self.opened, self.trial._trial_id), on_wait=self.say)

    def _requeue(self, error: str) -> None:
        self.say(f"trial {self.trial.number} is tried again: {error}")
        patiently(
            lambda: fail_and_requeue(self.opened, self.trial._trial_id, error), on_wait=self.say
        )


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
    is_done = record.training and is_evaluated(record, job.attacks, job.aa_samples)
    return record if is_done else None


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
