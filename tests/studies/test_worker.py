from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from studies import worker
from studies.supervisor import create_study
from studies.trial_run import WorkerSettings
from studies.worker import Worker, is_worker_dead, worker_lock, worker_name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_that_was_stopped_names_the_signal(number, tiny_study, tmp_path, monkeypatch):
    said: list[str] = []
    stopped = Worker(
        create_study(tiny_study, runs_dir=tmp_path), WorkerSettings(tmp_path), said.append
    )
    monkeypatch.setattr(worker, "claim_trial", lambda *_: os.kill(os.getpid(), number))
    monkeypatch.setattr(Worker, "_is_anything_running", lambda self: True)
    monkeypatch.setattr(worker, "WAIT_SECONDS", 0.0)
    assert not stopped.run()
    assert said == [f"{number.name}: stopped; the same command goes on"]


def test_lock_of_a_worker_tells_whether_it_lives(tmp_path):
    name = worker_name()
    assert not is_worker_dead(tmp_path, name)
    with worker_lock(tmp_path, name):
        assert not is_worker_dead(tmp_path, name)
    assert not is_worker_dead(tmp_path, name)


def abandon(folder: Path, worker: str) -> None:
    """Leaves the lock file of a worker that was killed."""
    (folder / "workers").mkdir(exist_ok=True)
    (folder / "workers" / f"{worker}.lock").touch()


@pytest.mark.parametrize("host", ["node-7-a", "node"])
def test_dead_is_known_of_workers_of_this_host_only(host, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    mine = worker_name()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-node")
    theirs = worker_name()
    abandon(tmp_path, mine)
    abandon(tmp_path, theirs)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert is_worker_dead(tmp_path, mine)
    # Where a file's lock is local to a host, that of a live worker elsewhere looks free.
    assert not is_worker_dead(tmp_path, theirs)


def test_worker_that_ends_meanwhile_is_not_taken_for_dead(tmp_path, monkeypatch):
    name = worker_name()
    abandon(tmp_path, name)
    found = Path.open

    def end_before(path: Path, *words, **options):
        path.unlink()
        return found(path, *words, **options)

    monkeypatch.setattr(Path, "open", end_before)
    assert not is_worker_dead(tmp_path, name)
