"""What a study has come to: counts, time left, its runs as a table, its best, its Pareto front."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from nasbench_at.records import Benchmark, Record, read_record
from nasbench_at.records.measurements import FolderMeasurements
from nasbench_at.records.run_folders import StudyRuns
from studies.config import StudyConfig
from studies.queue import latest_trials
from studies.study import OpenStudy

__all__ = ["Compute", "StudyResult", "StudyStatus", "is_feasible", "list_runs"]

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        name: The study.
        num_trials: Its slots.
        counts: Slots by state: ``complete``, ``pruned``, ``running``, ``waiting``, ``failed``.
        from_records: Slots that needed no training, because their runs were there.
        best: The best value of the first objective, where there is one objective.
        seconds_left: Estimate from the trials that trained; None before one has ended.
        errors: What the failed slots said, by slot.
    """

    name: str
    num_trials: int
    counts: dict[str, int]
    from_records: int
    best: float | None
    seconds_left: float | None
    errors: dict[int, str]

    @classmethod
    def of(cls, opened: OpenStudy) -> StudyStatus:
        """Reads the study's state."""
        trials = latest_trials(opened.study.get_trials(deepcopy=False))
        counts = Counter(_STATES[trial.state] for trial in trials)
        counts["waiting"] += opened.config.num_trials - len(trials)
        done = [trial for trial in trials if trial.state in DONE]
        complete = [t for t in trials if t.state == TrialState.COMPLETE and is_feasible(t)]
        values = [trial.values[0] for trial in complete if trial.values]
        is_single = len(opened.config.objectives) == 1
        choose = max if opened.study.directions[0].name == "MAXIMIZE" else min
        return cls(
            name=opened.config.name,
            num_trials=opened.config.num_trials,
            counts={name: counts[name] for name in _STATES.values()},
            from_records=sum(bool(trial.user_attrs.get("from_records")) for trial in done),
            best=choose(values) if values and is_single else None,
            seconds_left=_seconds_left(trials),
            errors={
                trial.user_attrs["slot"]: trial.user_attrs.get("error", "unknown")
                for trial in trials
                if trial.state == TrialState.FAIL
            },
        )

    @property
    def num_done(self) -> int:
        """Slots that are filled."""
        return self.counts["complete"] + self.counts["pruned"]

    @property
    def is_finished(self) -> bool:
        """Whether nothing runs or waits; some slots may have failed."""
        return not self.counts["running"] and not self.counts["waiting"]


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}


def _seconds_left(trials: list[FrozenTrial]) -> float | None:
    """Mean duration of what has ended, times what has not, by the workers that are at it."""
    durations = [
        trial.duration.total_seconds()
        for trial in trials
        if trial.state in DONE and trial.duration and not trial.user_attrs.get("from_records")
    ]
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    num_waiting = sum(trial.state == TrialState.WAITING for trial in trials)
    if not durations or not running:
        return 0.0 if not running and not num_waiting else None
    mean = sum(durations) / len(durations)
    now = datetime.now()  # Optuna's times are local and without a zone
    spent = sum(
        min((now - trial.datetime_start).total_seconds(), mean)
        for trial in running
        if trial.datetime_start is not None
    )
    return max(mean * (len(running) + num_waiting) - max(spent, 0.0), 0.0) / len(running)


@dataclass(frozen=True)
class Compute:
    """What a study has cost, and what training all of it in full would have.

    Attributes:
        seconds: Seconds of training of its runs, those found in the records not counted.
        epochs: Epochs trained.
        full_epochs: Epochs of training every trial in full.
        is_search: Whether trials were chosen from a space.
        space_size: Configurations of that space; None if it is not finite.
        exhaustive_epochs: Epochs of training all of them; None likewise.
    """

    seconds: float
    epochs: int
    full_epochs: int
    is_search: bool
    space_size: int | None
    exhaustive_epochs: int | None

    def describe(self) -> str:
        """Says it in a line."""
        text = f"{self.epochs:,} epochs trained, {self.full_epochs:,} if all trials were in full"
        if not self.is_search:
            return text
        if self.space_size is None or not self.exhaustive_epochs:
            return f"{text}; the space is not finite"
        share = self.epochs / self.exhaustive_epochs
        return (
            f"{text}; {self.exhaustive_epochs:,} for all {self.space_size:,} networks of the space "
            f"({share:.2%} of that)"
        )


@dataclass(frozen=True)
class StudyResult:
    """A study with the records of its runs.

    Attributes:
        config: The study.
        study: The Optuna study, for whatever Optuna offers.
        trials: A trial a slot.
        records: The runs of the finished trials, each once.
    """

    config: StudyConfig
    study: optuna.Study
    trials: tuple[FrozenTrial, ...]
    records: Benchmark

    @classmethod
    def of(cls, opened: OpenStudy, runs_dir: Path) -> StudyResult:
        """Reads a study's trials and the records of their runs.

        A record that cannot be read is left out, with a warning that names it.
        """
        trials = tuple(latest_trials(opened.study.get_trials(deepcopy=False)))
        found: dict[str, Record] = {}
        for trial in trials:
            run_id = trial.user_attrs.get("run_id")
            path = runs_dir / str(run_id) / "record.json"
            if trial.state == TrialState.COMPLETE and run_id not in found and path.exists():
                try:
                    found[str(run_id)] = read_record(path)
                except ValueError as error:
                    warnings.warn(str(error), stacklevel=2)
        measurements = {run_id: FolderMeasurements(runs_dir / run_id) for run_id in found}
        records = Benchmark(list(found.values()), measurements)
        return cls(opened.config, opened.study, trials, records)

    def frame(self) -> pd.DataFrame:
        """Returns a row a slot: state, parameters of the trial, objectives, accuracies, run."""
        records = {record.run_id: record for record in self.records}
        rows = []
        for trial in self.trials:
            run_id = trial.user_attrs.get("run_id")
            record = records.get(str(run_id))
            values: list[Any] = list(trial.values or [None] * len(self.config.objectives))
            rows.append(
                {
                    "slot": trial.user_attrs["slot"],
                    "state": _STATES[trial.state],
                    **trial.params,
                    **{
                        f"validation_{name}" if name in ("robust", "natural") else name: value
                        for name, value in zip(self.config.objectives, values, strict=False)
                    },
                    **({} if record is None else _accuracies(record)),
                    "run_id": run_id,
                }
            )
            if trial.state == TrialState.FAIL:
                rows[-1]["error"] = trial.user_attrs.get("error")
        return pd.DataFrame(rows)

    def best_trial(self) -> FrozenTrial | None:
        """Returns the best feasible trial by the first objective, on validation images."""
        complete = [t for t in self.trials if t.state == TrialState.COMPLETE and is_feasible(t)]
        sign = 1 if self.study.directions[0].name == "MAXIMIZE" else -1
        return max(complete, key=lambda trial: sign * trial.values[0], default=None)

    def best(self) -> Record:
        """Returns the record of the best trial.

        Raises:
            ValueError: If no feasible trial has completed, or its run's record is missing.
        """
        trial = self.best_trial()
        if trial is None:
            raise ValueError(f"study {self.config.name!r} has no feasible trial that completed")
        run_id = trial.user_attrs["run_id"]
        for record in self.records:
            if record.run_id == run_id:
                return record
        raise ValueError(
            f"the best run of study {self.config.name!r} is missing: {run_id}/record.json"
        )

    def missing_runs(self) -> list[str]:
        """Returns the runs of completed trials that have no record, or one that cannot be read."""
        complete = [t.user_attrs["run_id"] for t in self.trials if t.state == TrialState.COMPLETE]
        found = {record.run_id for record in self.records}
        return [run_id for run_id in dict.fromkeys(complete) if run_id not in found]

    def pareto(self) -> pd.DataFrame:
        """Returns the rows of the trials that no other is better than by all objectives."""
        if len(self.config.objectives) == 1:
            trial = self.best_trial()
            best = [] if trial is None else [trial]
        else:
            best = self.study.best_trials
        frame = self.frame()
        return frame[frame["slot"].isin([trial.user_attrs["slot"] for trial in best])]

    def check_varied(self) -> None:
        """Checks that there is something to tell apart.

        Raises:
            ValueError: If fewer than two trials have completed, or none of their values differ.
        """
        complete = [t for t in self.trials if t.state == TrialState.COMPLETE]
        if len({trial.values[0] for trial in complete}) < 2:
            raise ValueError(
                f"importance needs at least two completed trials of different values, study "
                f"{self.config.name!r} has {len(complete)} completed"
            )

    def importance(self) -> pd.Series[float]:
        """Returns how much each parameter matters for the first objective, by PED-ANOVA.

        Raises:
            ValueError: If fewer than two trials have completed, or none of their values differ.
        """
        self.check_varied()
        values = optuna.importance.get_param_importances(
            self.study,
            target=(lambda trial: trial.values[0]) if len(self.config.objectives) > 1 else None,
        )
        return pd.Series(values, dtype=float).sort_values(ascending=False)

    def compute(self) -> Compute:
        """Returns what the study has cost against training everything in full."""
        records = {record.run_id: record for record in self.records}
        epochs = full = 0
        seconds = 0.0
        for trial in self.trials:
            if trial.state not in DONE:
                continue
            run_id = trial.user_attrs.get("run_id")
            record = records.get(str(run_id))
            full += self.config.base.epochs or 0
            epochs += trial.user_attrs.get("screening_epochs", 0)
            if trial.state == TrialState.PRUNED:  # its run may be there, from another trial
                epochs += trial.user_attrs.get("epochs", 0)
            elif record is not None and not trial.user_attrs.get("from_records"):
                epochs += record.training["epochs"]
            if trial.duration and not trial.user_attrs.get("from_records"):
                seconds += trial.duration.total_seconds()
        space = self.config.space
        size = None if space is None else space.size(self.config.base.num_modules)
        exhaustive = None if size is None else size * (self.config.base.epochs or 0)
        return Compute(seconds, epochs, full, space is not None, size, exhaustive)


def list_runs(opened: OpenStudy, folder: Path, summary: str = "") -> None:
    """Writes into a study's folder which finished runs are its own, for reports and queries.

    Args:
        opened: The study.
        folder: Its folder.
        summary: A line about it.
    """
    trials = latest_trials(opened.study.get_trials(deepcopy=False))
    run_ids = [t.user_attrs["run_id"] for t in trials if t.state == TrialState.COMPLETE]
    is_finished = StudyStatus.of(opened).is_finished
    StudyRuns(tuple(dict.fromkeys(run_ids)), is_finished, summary).write(folder)


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial meets its constraints."""
    return all(value <= 0 for value in trial.constraints.values())


def _accuracies(record: Record) -> dict[str, float | int]:
    return {"num_params": record.num_params} | {
        name: result.accuracy
        for name, result in record.results.items()
        if name != "worst_case" and "/" not in name  # the attacks themselves; the record has all
    }
