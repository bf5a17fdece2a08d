from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.trial import FrozenTrial

from studies import trial_run
from studies.config import StudyConfig
from studies.queue import claim_trial, fill_queue, release_worker
from studies.recipes import search
from studies.results import StudyResult
from studies.study import OpenStudy, create_or_open_study
from studies.trial_process import Outcome, TrialJob
from studies.trial_run import TrialRun, WorkerSettings


class DoneProcess:
    """A trial's process that has nothing to do."""

    resumed_from = None
    outcome = Outcome("done")

    def __init__(self, job: TrialJob) -> None:
        pass

    def wait(self, seconds: float) -> bool:
        return True


def record(epochs: int) -> SimpleNamespace:
    return SimpleNamespace(
        training={"epochs": epochs, "selected": {"validation_robust": 0.5}}, num_params=9
    )


@pytest.fixture
def screened(base, tmp_path) -> OpenStudy:
    config = search(
        replace(base, epochs=3),
        num_trials=1,
        pool=("residual", "mbconv"),
        pruner="none",
        screening_epochs=1,
    )
    return open_filled(config, tmp_path)


def open_filled(config: StudyConfig, runs: Path) -> OpenStudy:
    opened = create_or_open_study(config, f"sqlite:///{runs}/s.db", runs_dir=runs)
    fill_queue(opened)
    return opened


def run(opened: OpenStudy, runs: Path) -> FrozenTrial:
    trial = claim_trial(opened, "w")
    assert trial is not None
    TrialRun(opened, trial, WorkerSettings(runs, device="cpu"), lambda: False, lambda _: None).run()
    return opened.study.get_trials()[0]


@pytest.mark.parametrize("is_found", [False, True])
def test_screening_that_was_there_hides_nothing_of_what_the_full_run_costs(
    is_found, screened, tmp_path, monkeypatch
):
    def find(job: TrialJob) -> SimpleNamespace | None:
        return record(1) if is_found and job.config.epochs == 1 else None

    monkeypatch.setattr(trial_run, "TrialProcess", DoneProcess)
    monkeypatch.setattr(trial_run, "_find_record", find)
    monkeypatch.setattr(trial_run, "read_record", lambda path: record(1))
    trial = run(screened, tmp_path)
    assert trial.state.name == "COMPLETE"
    assert trial.user_attrs["screened"] == 0.5
    assert "from_records" not in trial.user_attrs
    assert ("screening_epochs" in trial.user_attrs) is not is_found
    assert StudyResult.of(screened, tmp_path).compute().seconds > 0


def test_trial_found_in_the_records_costs_nothing(screened, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_run, "_find_record", lambda job: record(job.config.epochs))
    assert run(screened, tmp_path).user_attrs["from_records"]
    cost = StudyResult.of(screened, tmp_path).compute()
    assert (cost.seconds, cost.epochs) == (0, 0)


def test_damaged_record_costs_its_own_trial(tiny_study, tmp_path):
    folder = tmp_path / tiny_study.runs[0].config.run_id
    folder.mkdir()
    (folder / "record.json").write_text('{"schema_version": ')
    trial = run(open_filled(tiny_study, tmp_path), tmp_path)
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["error"].startswith(f"cannot read record '{folder}/record.json': ")
    assert "\n" not in trial.user_attrs["error"]


def test_screening_counts_a_slot_once_whoever_died_in_it(base, tmp_path, monkeypatch):
    scores = {0: 0.5, 1: 0.3, 2: 0.4}
    config = search(
        replace(base, epochs=3),
        num_trials=3,
        pool=("residual", "mbconv"),
        pruner="none",
        screening_epochs=1,
        screening_keep=0.5,
    )
    opened = open_filled(config, tmp_path)
    first = claim_trial(opened, "dead")
    first.set_user_attr("screened", scores[0])
    release_worker(opened, "dead")
    monkeypatch.setattr(trial_run, "TrialProcess", DoneProcess)
    monkeypatch.setattr(trial_run, "_find_record", lambda job: None)
    for slot in (1, 2):
        read = record(1)
        read.training["selected"]["validation_robust"] = scores[slot]
        monkeypatch.setattr(trial_run, "read_record", lambda path, read=read: read)
        run(opened, tmp_path)
    assert [t.state.name for t in opened.study.get_trials()][1:3] == ["PRUNED", "COMPLETE"]


class BrokenProcess(DoneProcess):
    """What is left of a process after a signal to the whole group."""

    outcome = Outcome("failed", "its process ended with code 255")

    def stop(self) -> None:
        self.outcome = Outcome("interrupted", "it was stopped")


def test_trial_that_ends_along_with_its_worker_goes_back_to_the_queue(base, tmp_path, monkeypatch):
    opened = open_filled(
        search(base, num_trials=1, pool=("residual", "mbconv"), pruner="none"), tmp_path
    )
    monkeypatch.setattr(trial_run, "TrialProcess", BrokenProcess)
    for is_stopping, state in ((True, "WAITING"), (False, "FAIL")):
        trial = claim_trial(opened, "w")
        settings = WorkerSettings(tmp_path, device="cpu")
        TrialRun(opened, trial, settings, lambda s=is_stopping: s, lambda _: None).run()
        assert opened.study.get_trials()[0].state.name == state


def test_more_trials_than_combinations_end_like_others(base, tmp_path, monkeypatch):
    study = search(
        base, num_trials=5, pool=("residual", "mbconv"), pruner="none", sampler="brute_force"
    )
    opened = open_filled(study, tmp_path)
    monkeypatch.setattr(trial_run, "_find_record", lambda job: record(1))
    for _ in range(5):
        run(opened, tmp_path)
    assert [trial.state.name for trial in opened.study.get_trials()] == ["COMPLETE"] * 5
    sets = [tuple(trial.params.items()) for trial in opened.study.get_trials()]
    assert len(set(sets)) < 5
