"""Where a study's trials are kept: SQLite beside it, or PostgreSQL for many machines.

Only databases know heartbeats: a worker that dies is noticed, and its trial is tried again.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy import create_engine, func, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from nasbench_at.config.allowed_values import hide_passwords

__all__ = [
    "GRACE_SECONDS",
    "HEARTBEAT_SECONDS",
    "MAX_RETRIES",
    "SQLITE_FILE",
    "STORAGE_VARIABLE",
    "StorageError",
    "chosen_storage",
    "exclusively",
    "folder_storage",
    "has_password",
    "heartbeat",
    "open_storage",
    "patiently",
    "storage_url",
    "without_experimental_warnings",
]

ResultT = TypeVar("ResultT")

STORAGE_VARIABLE = "NASBENCH_AT_STORAGE"
"""Environment variable with a storage's URL: a password does not belong into a command line."""
SQLITE_FILE = "study.db"
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60
"""A trial without a heartbeat for so long is given up and queued again."""
MAX_RETRIES = 5
"""How often a trial whose process died is queued again."""
PATIENCE_SECONDS = 600.0
"""How long an outage of the storage is waited out."""

_QUEUE_LOCK = 0x6E617362
_BACKENDS = ("sqlite", "postgresql")
OUTAGES = (optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)


class StorageError(ValueError):
    """The storage cannot be reached; the message is one line."""


def storage_url(given: str | None, folder: Path) -> str:
    """Returns where a study is kept.

    Args:
        given: A URL; None takes the environment's, or SQLite in the study's folder.
        folder: The study's folder.
    """
    return chosen_storage(given) or folder_storage(folder)


def chosen_storage(given: str | None) -> str | None:
    """Returns the URL that was given, or else the environment's; None if there is neither."""
    return given or os.environ.get(STORAGE_VARIABLE) or None


def folder_storage(folder: Path) -> str:
    """Returns the URL of the database in a study's folder."""
    database = str((folder / SQLITE_FILE).resolve())
    return URL.create("sqlite", database=database).render_as_string()  # which quotes ? and @


def has_password(url: str) -> bool:
    """Whether a storage's URL holds a password, before its host or in its query."""
    try:
        return bool(_passwords(make_url(url)))
    except (ArgumentError, ValueError):
        return hide_passwords(url) != url


def open_storage(url: str, *, create: bool = False) -> RDBStorage:
    """Opens a storage.

    Args:
        url: As SQLAlchemy takes it, such as ``postgresql+psycopg://user@host/database``.
        create: Make its file and its tables if they are missing; else nothing is written.

    Raises:
        StorageError: If the URL is none, its driver is missing, the server cannot be reached or
            there is nothing to open.
    """
    shown = hide_passwords(url)
    parsed = _parse_url(url)
    secrets = _passwords(parsed)
    try:
        is_file = parsed.get_backend_name() == "sqlite"
        # Another worker may write for a while; a server's dead connections are renewed.
        options = {
            "connect_args": {"timeout": 60} if is_file else {"connect_timeout": 10},
            "pool_pre_ping": not is_file,
        }
        if not create and not _holds_studies(parsed, options):
            raise StorageError(f"storage {shown!r} holds no studies")
        with without_experimental_warnings():
            return RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # which Optuna takes for a template
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
            )
    except (ImportError, NoSuchModuleError) as error:
        raise StorageError(
            f"storage {shown!r} needs a driver: {error}; pip install 'nasbench-at[postgres]'"
        ) from None
    except OUTAGES as error:
        raise StorageError(
            f"storage {shown!r} cannot be reached: {_reason(error, secrets)}"
        ) from None
    except RuntimeError as error:  # Optuna's word on tables of another version
        raise StorageError(f"storage {shown!r} cannot be used: {_reason(error, secrets)}") from None


def _parse_url(url: str) -> URL:
    is_server = url.startswith("postgresql")
    if is_server and re.search(r"[\s'\"]", url):
        raise StorageError(
            "a blank or a quote in a storage's URL must be written as %20, %22 or %27"
        )
    # A part of the password would be the host.
    if is_server and url.partition("?")[0].count("@") > 1:
        raise StorageError(
            f"an '@' in a storage's password must be written %40, got {hide_passwords(url)!r}"
        )
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() in _BACKENDS:
            return parsed
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        pass
    raise StorageError(
        "storage must be a URL of sqlite or postgresql, such as "
        f"postgresql+psycopg://user@host/database, got {hide_passwords(url)!r}"
    )


def _holds_studies(url: URL, options: Mapping[str, Any]) -> bool:
    """Whether there is something to look at: connecting to SQLite would make a file."""
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return False
    engine = create_engine(url, **options)
    try:
        return inspect(engine).has_table("studies")
    finally:
        engine.dispose()


@contextmanager
def exclusively(storage: RDBStorage) -> Iterator[None]:
    """Lets one process at a time change a study's queue.

    SQLite has no row locks: between Optuna's look at a trial's state and its change of it, another
    worker may do the same. A file beside the database stands for the lock; a server has its own.
    """
    url = storage.engine.url
    if url.get_backend_name() == "sqlite":
        with Path(f"{url.database}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    with storage.engine.connect() as connection:
        connection.execute(select(func.pg_advisory_lock(_QUEUE_LOCK)))
        try:
            yield
        finally:
            connection.execute(select(func.pg_advisory_unlock(_QUEUE_LOCK)))


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Leaves Optuna's notes on what may change out of what users see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def patiently(
    call: Callable[[], ResultT],
    *,
    patience: float = PATIENCE_SECONDS,
    on_wait: Callable[[str], None] | None = None,
) -> ResultT:
    """Makes a call to the storage, again and again with growing pauses while there is an outage.

    Args:
        call: What to do; must do no harm when it is done twice.
        patience: Seconds after which the outage is reported.
        on_wait: Is told of an outage, once, in a line.

    Raises:
        StorageError: If the outage outlasts the patience.
    """
    begun, pause = time.monotonic(), 0.25
    while True:
        try:
            return call()
        except OUTAGES as error:
            if time.monotonic() - begun + pause > patience:
                raise StorageError(
                    f"the storage was away for {patience:g} s: {_reason(error)}"
                ) from None
            if on_wait is not None:
                on_wait(f"the storage is away, waiting for it: {_reason(error)}")
                on_wait = None
            time.sleep(pause)
            pause = min(2 * pause, 15.0)


@contextmanager
def heartbeat(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Shows for the length of the block that a trial is alive; outages are waited out."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            try:
                storage.record_heartbeat(trial_id)
            except OUTAGES:
                # Late is better than dead: the next beat comes soon enough.
                stop.wait(1.0)
                continue
            stop.wait(HEARTBEAT_SECONDS)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def _passwords(url: URL) -> list[str]:
    """The passwords in a URL, decoded, as drivers may write them."""
    found = [] if url.password is None else [str(url.password)]
    for name, value in url.query.items():
        if name.lower().endswith("password"):
            found += [value] if isinstance(value, str) else value
    return [password for password in found if password]


def _reason(error: BaseException, secrets: Sequence[str] = ()) -> str:
    text = str(error.__cause__ or error).split("\n[SQL")[0]
    for secret in secrets:
        text = text.replace(secret, "***")
    return hide_passwords(" ".join(text.split()))[:200]
