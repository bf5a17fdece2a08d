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
    exclusively,
    folder_storage,
    has_password,
    heartbeat,
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
        (
            "postgresql+psycopg://u:se@secret@h/d",
            r"written %40, got 'postgresql.psycopg://u:\*\*\*@h",
        ),
        ("postgresql+psycopg://127.0.0.1:9/d?password=secret", r"9/d.password=\*\*\*' cannot"),
        ("postgresql+psycopg://u:secret@h:x/d", r"got 'postgresql.psycopg://u:\*\*\*@h:x/d'"),
        ("postgresql://u:my secret@h/d", r"^a blank or a quote in a storage's URL must be written"),
        ("postgresql://u:my'secret@h/d", r"as %20, %22 or %27$"),
        ("postgresql://h/d?sslpassword=a%20secret&port=x", r"storage 'postgresql://h/d.sslpass"),
        ("mysql://u:my secret@h/d", r"got 'mysql://u:\*\*\*@h/d'"),
        ("mysql://u:secret@h/d", r"got 'mysql://u:\*\*\*@h/d'"),
    ],
)
def test_storage_that_cannot_be_opened_is_named_in_a_line(url, message):
    with pytest.raises(StorageError, match=message) as error:
        open_storage(url, create=True)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_storage_that_is_looked_at_is_not_made(tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(StorageError, match=r"storage 'sqlite:///.*/s\.db' holds no studies"):
        open_storage(url)
    assert not list(tmp_path.iterdir())
    (tmp_path / "s.db").touch()
    with pytest.raises(StorageError, match="holds no studies"):
        open_storage(url)
    assert (tmp_path / "s.db").stat().st_size == 0
    open_storage(url, create=True)
    open_storage(url)


@pytest.mark.parametrize("name", ["a@b@c", "why?", "a{b}", "50%41", "plain"])
def test_folder_of_any_name_may_hold_a_study(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    url = folder_storage(folder)
    optuna.create_study(storage=open_storage(url, create=True), study_name="s")
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    storage = open_storage(url)
    assert optuna.get_all_study_names(storage) == ["s"]
    with exclusively(storage):
        assert (folder / "study.db.lock").exists()


def test_at_signs_in_a_file_of_sqlite_are_no_password(tmp_path):
    open_storage(f"sqlite:///{tmp_path}/a@b@{{c}}.db", create=True)
    assert (tmp_path / "a@b@{c}.db").is_file()


def test_reason_of_an_outage_holds_no_password(monkeypatch):
    def call() -> None:
        raise OSError("no route to postgresql://u:secret@h/d")

    with pytest.raises(StorageError, match=r"no route to postgresql://u:\*\*\*@h/d"):
        patiently(call, patience=0)


def test_storage_is_given_or_the_environments_or_sqlite(tmp_path, monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)
    assert storage_url(None, tmp_path) == f"sqlite:///{tmp_path}/study.db"
    monkeypatch.setenv(STORAGE_VARIABLE, "postgresql://h/d")
    assert storage_url(None, tmp_path) == "postgresql://h/d"
    assert storage_url("sqlite:///x.db", tmp_path) == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("url", "is_secret"),
    [
        ("sqlite:////home/me:x@y/s.db", False),
        ("postgresql://u@h:5432/d?application_name=me", False),
        ("postgresql://u:p%20w@h/d", True),
        ("postgresql://u:my word@h/d", True),
        ("postgresql://h/d?sslmode=require&sslPassword=word", True),
        ("postgresql://h/d?%70assword=word", True),
        ("postgresql://u:word@h:x/d", True),
    ],
)
def test_password_is_found_in_the_parsed_url(url, is_secret):
    assert has_password(url) is is_secret


def test_reason_of_a_driver_holds_no_decoded_password(monkeypatch, tmp_path):
    def refuse(*words: object, **options: object) -> None:
        raise OSError("bad dsn: user=u pw=my word")

    monkeypatch.setattr("studies.storage.RDBStorage", refuse)
    for url in ("postgresql://u:my%20word@h/d", "postgresql://h/d?%70assword=my%20word"):
        with pytest.raises(StorageError, match=r"bad dsn: user=u pw=\*\*\*$") as error:
            open_storage(url, create=True)
        assert "word@" not in str(error.value)
        assert "20word" not in str(error.value)


@pytest.mark.slow
def test_writer_that_holds_sqlite_is_waited_for(tmp_path):
    path = tmp_path / "s.db"
    storage = open_storage(f"sqlite:///{path}", create=True)
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
    storage = open_storage(f"sqlite:///{tmp_path}/s.db", create=True)
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
