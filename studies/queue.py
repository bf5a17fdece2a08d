"""The trials of a study as a queue of slots: each is done once, whatever happens to workers.

A slot is a place in the study's budget. Its trials are those that tried it: one that completed or
was pruned fills it, one that died is followed by another. Slots are handed out by the database, so
that many workers neither lose nor repeat one.
"""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from studies.config import StudyConfig
from studies.storage import MAX_RETRIES, exclusively, without_experimental_warnings
from studies.study import OpenStudy, create_sampler

__all__ = [
    "by_slot",
    "claim_trial",
    "fail_and_requeue",
    "fill_queue",
    "latest_trials",
    "put_back",
    "release_stale_trials",
    "release_worker",
    "requeue_failed",
]

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def by_slot(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Returns the trials of each slot in order."""
    slots: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        if "slot" in trial.user_attrs:
            slots.setdefault(trial.user_attrs["slot"], []).append(trial)
    return dict(sorted(slots.items()))


def latest_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Returns a trial a slot: the one that filled it, or the last that tried."""
    return [
        next((trial for trial in tries if trial.state in DONE), tries[-1])
        for tries in by_slot(trials).values()
    ]


def fill_queue(opened: OpenStudy) -> int:
    """Queues a trial for every slot that never had one; returns how many."""
    with exclusively(opened.storage):
        return _fill(opened.study, opened.config)


def _fill(study: optuna.Study, config: StudyConfig) -> int:
    known = by_slot(study.get_trials(deepcopy=False))
    missing = [slot for slot in range(config.num_trials) if slot not in known]
    for slot in missing:
        fixed = dict(config.runs[slot].labels) if config.runs else {}
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                user_attrs={"slot": slot},
                system_attrs={"fixed_params": fixed},
            )
        )
    return len(missing)


def claim_trial(opened: OpenStudy, worker: str) -> optuna.Trial | None:
    """Takes the first waiting trial for a worker; None if none waits.

    `Study.ask` would make a trial of its own then, and the budget would not be kept.
    """
    study, storage = opened.study, opened.storage
    with exclusively(storage):
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting:
            return None
        frozen = waiting[0]
        # It runs last: a worker that dies in between leaves no trial that nobody would miss.
        storage.record_heartbeat(frozen._trial_id)
        storage.set_trial_user_attr(frozen._trial_id, "worker", worker)
        storage.set_trial_state_values(frozen._trial_id, state=TrialState.RUNNING)
    study.sampler = create_sampler(opened.config, frozen.user_attrs["slot"])
    return optuna.Trial(study, frozen._trial_id)


def put_back(opened: OpenStudy, trial_id: int) -> None:
    """Lets a running trial wait again, as one that was interrupted and not one that died."""
    with exclusively(opened.storage):
        if opened.storage.get_trial(trial_id).state == TrialState.RUNNING:
            opened.storage.set_trial_state_values(trial_id, state=TrialState.WAITING)


def fail_and_requeue(opened: OpenStudy, trial_id: int, error: str) -> bool:
    """Gives a running trial up and queues it again; returns False if it does not run any more."""
    storage = opened.storage
    with exclusively(storage):
        trial = storage.get_trial(trial_id)
        if trial.state == TrialState.RUNNING:
            storage.set_trial_user_attr(trial_id, "error", error)
            storage.set_trial_user_attr(trial_id, _GIVEN_UP, trial.number)
            storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
        elif not _is_given_up(trial):
            return False
        _requeue_given_up(opened.study)
    return True


_GIVEN_UP = "given_up"  # its value is the trial's number, since those that follow have it, too


def _is_given_up(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and trial.user_attrs.get(_GIVEN_UP) == trial.number


def _requeue_given_up(study: optuna.Study) -> None:
    """Queues trials that were given up again, also where whoever did so died before this."""
    for trial in latest_trials(study.get_trials(deepcopy=False)):
        if _is_given_up(trial):
            requeue(study, trial)


def requeue(study: optuna.Study, trial: FrozenTrial, max_retries: int | None = MAX_RETRIES) -> None:
    """Queues a trial with the same parameters again, unless it has died too often."""
    with without_experimental_warnings():
        RetryHeartbeatStaleTrialCallback(max_retries)(study, trial)


def release_worker(opened: OpenStudy, worker: str) -> int:
    """Queues the trials of a dead worker again, without waiting for its heartbeat to be missed."""
    running = opened.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(
        fail_and_requeue(opened, trial._trial_id, "its worker died")
        for trial in running
        if trial.user_attrs.get("worker") == worker
    )


def release_stale_trials(opened: OpenStudy) -> int:
    """Queues the trials again whose heartbeat is missed; returns how many."""
    failed = (TrialState.FAIL,)
    with exclusively(opened.storage), without_experimental_warnings():
        before = len(opened.study.get_trials(deepcopy=False, states=failed))
        fail_stale_trials(opened.study)
        _requeue_given_up(opened.study)
        return len(opened.study.get_trials(deepcopy=False, states=failed)) - before


def requeue_failed(opened: OpenStudy) -> int:
    """Queues every slot again whose last trial failed, however often; returns how many."""
    with exclusively(opened.storage):
        failed = [
            trial
            for trial in latest_trials(opened.study.get_trials(deepcopy=False))
            if trial.state == TrialState.FAIL
        ]
        for trial in failed:
            requeue(opened.study, trial, max_retries=None)
    return len(failed)
