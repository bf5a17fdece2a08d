from __future__ import annotations

import socket
from pathlib import Path

import pytest

from studies.worker import is_worker_dead, worker_lock, worker_name


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
