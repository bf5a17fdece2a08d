from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from studies import queue
from studies.queue import (
    by_slot,
    claim_trial,
    fail_and_requeue,
    fill_queue,
    latest_trials,
    put_back,
    release_stale_trials,
    release_worker,
    requeue_failed,
)
from studies.storage import MAX_RETRIES
from studies.study import OpenStudy, create_or_open_study


@pytest.fixture
def opened(tiny_study, tmp_path) -> OpenStudy:
    study = create(tiny_study, tmp_path)
    fill_queue(study)
    return study


def create(config, tmp_path: Path) -> OpenStudy:
    return create_or_open_study(config, f"sqlite:///{tmp_path}/s.db", runs_dir=tmp_path)


def claim(opened: OpenStudy, worker: str = "w") -> optuna.Trial | None:
    return claim_trial(opened, worker)


def states(opened: OpenStudy) -> list[str]:
    return [trial.state.name for trial in opened.study.get_trials()]


def test_every_slot_is_queued_once(opened, tiny_study):
    assert states(opened) == ["WAITING"] * 3
    assert fill_queue(opened) == 0
    fixed = [trial.system_attrs["fixed_params"] for trial in opened.study.get_trials()]
    assert fixed == [dict(planned.labels) for planned in tiny_study.runs]


def test_queue_that_was_cut_off_is_completed(tiny_study, tmp_path):
    opened = create(tiny_study, tmp_path)
    fill_queue(replace(opened, config=replace(tiny_study, runs=tiny_study.runs[:1])))
    assert fill_queue(opened) == 2
    assert list(by_slot(opened.study.get_trials())) == [0, 1, 2]


def test_many_workers_claim_each_trial_once_and_make_none(opened):
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda i: claim(opened, f"w{i}"), range(8)))
    numbers = sorted(trial.number for trial in claimed if trial is not None)
    assert numbers == [0, 1, 2]
    assert states(opened) == ["RUNNING"] * 3


def test_dead_workers_trials_are_queued_again_and_others_are_not(opened):
    first, second = claim(opened, "dead"), claim(opened, "alive")
    assert release_worker(opened, "dead") == 1
    assert release_worker(opened, "dead") == 0
    assert states(opened) == ["FAIL", "RUNNING", "WAITING", "WAITING"]
    trials = opened.study.get_trials()
    assert trials[first.number].user_attrs["error"] == "its worker died"
    assert trials[3].user_attrs["slot"] == trials[first.number].user_attrs["slot"]
    assert trials[3].system_attrs["retry_history"] == [first.number]
    assert second.number == 1


def test_interrupted_trial_waits_again_with_its_parameters(opened):
    trial = claim(opened)
    trial.suggest_categorical("residual", [True, False])
    put_back(opened, trial._trial_id)
    put_back(opened, trial._trial_id)
    assert states(opened) == ["WAITING"] * 3
    again = claim(opened, "other")
    assert (again.number, again.params) == (trial.number, {"residual": True})
    opened.study.tell(again, 0.5)
    put_back(opened, again._trial_id)
    assert states(opened) == ["COMPLETE", "WAITING", "WAITING"]


def test_stale_heartbeat_queues_a_trial_again(opened, monkeypatch):
    claim(opened)
    assert release_stale_trials(opened) == 0
    monkeypatch.setattr(opened.storage, "grace_period", -1)
    assert release_stale_trials(opened) == 1
    assert states(opened) == ["FAIL", "WAITING", "WAITING", "WAITING"]


def test_trial_that_dies_again_and_again_is_given_up_until_it_is_repaired(opened):
    for _ in range(MAX_RETRIES + 1):
        waiting = opened.study.get_trials(states=(TrialState.WAITING,))
        slot0 = next(trial for trial in waiting if trial.user_attrs["slot"] == 0)
        opened.storage.set_trial_state_values(slot0._trial_id, TrialState.RUNNING)
        assert fail_and_requeue(opened, slot0._trial_id, "died")
    tries = by_slot(opened.study.get_trials())[0]
    assert [trial.state for trial in tries] == [TrialState.FAIL] * (MAX_RETRIES + 1)
    assert requeue_failed(opened) == 1
    assert by_slot(opened.study.get_trials())[0][-1].state == TrialState.WAITING
    assert requeue_failed(opened) == 0


def test_finished_trial_cannot_be_given_up(opened):
    trial = claim(opened)
    opened.study.tell(trial, 0.5)
    frozen = opened.study.get_trials()[trial.number]
    assert not fail_and_requeue(opened, frozen._trial_id, "late")
    assert len(opened.study.get_trials()) == 3


def test_latest_trial_of_a_slot_is_the_one_that_filled_it(opened):
    trial = claim(opened)
    frozen = opened.study.get_trials()[trial.number]
    fail_and_requeue(opened, frozen._trial_id, "died")
    assert latest_trials(opened.study.get_trials())[0].state == TrialState.WAITING
    again = opened.study.get_trials()[3]
    opened.storage.set_trial_state_values(again._trial_id, TrialState.RUNNING)
    opened.study.tell(3, 0.7)
    assert latest_trials(opened.study.get_trials())[0].number == 3


def test_worker_that_dies_while_it_claims_leaves_a_trial_that_waits(opened, monkeypatch):
    def die(*_: object) -> None:
        raise SystemExit

    for name in ("record_heartbeat", "set_trial_user_attr"):
        with monkeypatch.context() as patch:
            patch.setattr(opened.storage, name, die)
            with pytest.raises(SystemExit):
                claim(opened, "dead")
        assert states(opened) == ["WAITING"] * 3
    assert claim(opened).number == 0


def test_trial_whose_worker_and_its_heir_died_is_queued_once(opened, monkeypatch):
    trial = claim(opened, "dead")

    def die(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(queue, "requeue", die)
        with pytest.raises(SystemExit):
            release_worker(opened, "dead")
    assert states(opened) == ["FAIL", "WAITING", "WAITING"]
    assert fail_and_requeue(opened, trial._trial_id, "again")
    release_stale_trials(opened)
    assert states(opened) == ["FAIL", "WAITING", "WAITING", "WAITING"]
    again = opened.study.get_trials()[3]
    assert again.user_attrs["slot"] == trial.user_attrs["slot"]


def test_trial_that_failed_by_itself_is_not_taken_for_one_that_was_given_up(opened):
    claim(opened, "dead")
    release_worker(opened, "dead")
    for _ in range(3):
        last = claim(opened)
    assert last.user_attrs["slot"] == 0
    opened.study.tell(last, state=TrialState.FAIL)
    release_stale_trials(opened)
    assert states(opened) == ["FAIL", "RUNNING", "RUNNING", "FAIL"]
