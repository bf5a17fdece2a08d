from __future__ import annotations

import itertools
import sqlite3
import threading
import time

import optuna
import pytest

from studies.storage import (
    STORAGE_VARIABLE,
    StorageError,
    heartbeat,
    hide_password,
    open_storage,
    patiently,
    storage_url,
)

AWAY = optuna.exceptions.StorageInternalError("the server is gone")


def test_outage_is_waited_out_and_told_once(monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    failures = itertools.chain([AWAY, AWAY, OSError("connection reset")], itertools.repeat(None))
    said: list[str] = []

    def call() -> int:
        error = next(failures)
        if error is not None:
            raise error
        return 7

    assert patiently(call, on_wait=said.append) == 7
    assert pauses == [0.25, 0.5, 1.0]
    assert said == ["the storage is away, waiting for it: the server is gone"]


def test_outage_that_lasts_is_reported(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    def call() -> None:
        raise AWAY

    with pytest.raises(StorageError, match="the storage was away for 5 s: the server is gone"):
        patiently(call, patience=5)


def test_other_errors_are_not_waited_out():
    def call() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        patiently(call)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "storage must be a URL of sqlite or postgresql, .*, got 'nonsense'"),
        ("oracle://h/d", "storage must be a URL of sqlite or .*, got 'oracle://h/d'"),
        ("postgresql+psyco://h/d", "storage 'postgresql.psyco://h/d' needs a driver"),
        ("sqlite:////none/at/all/s.db", "storage 'sqlite:////none/at/all/s.db' cannot be reached"),
        ("postgresql+psycopg://u:secret@127.0.0.1:9/d", r"u:\*\*\*@127.0.0.1:9/d' cannot be"),
    ],
)
def test_storage_that_cannot_be_opened_is_named_in_a_line(url, message):
    with pytest.raises(StorageError, match=message) as error:
        open_storage(url)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_password_is_hidden():
    assert hide_password("postgresql+psycopg://u:secret@h/d") == "postgresql+psycopg://u:***@h/d"


def test_storage_is_given_or_the_environments_or_sqlite(tmp_path, monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv(STORAGE_VARIABLE, "postgresql://h/d")
    assert storage_url(None, tmp_path) == "postgresql://h/d"
    assert storage_url("sqlite:///x.db", tmp_path) == "sqlite:///x.db"


@pytest.mark.slow
def test_writer_that_holds_sqlite_is_waited_for(tmp_path):
    path = tmp_path / "s.db"
    storage = open_storage(f"sqlite:///{path}")
    study = optuna.create_study(storage=storage, study_name="s")
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    released = threading.Timer(3.0, lambda: holder.execute("COMMIT"))
    released.start()
    begun = time.monotonic()
    patiently(lambda: study.set_user_attr("a", 1))
    assert time.monotonic() - begun > 2
    assert study.user_attrs == {"a": 1}
    holder.close()


def test_heartbeat_beats_and_outlives_an_outage(tmp_path, monkeypatch):
    storage = open_storage(f"sqlite:///{tmp_path}/s.db")
    beats: list[int] = []
    failures = iter([AWAY])
    done = threading.Event()

    def record(trial_id: int) -> None:
        for error in failures:
            raise error
        beats.append(trial_id)
        done.set()

    monkeypatch.setattr(storage, "record_heartbeat", record)
    with heartbeat(storage, 5):
        assert done.wait(10)
    assert beats == [5]
