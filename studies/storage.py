"""Where a study's trials are kept: SQLite beside it, or PostgreSQL for many machines.

Only databases know heartbeats: a worker that dies is noticed, and its trial is tried again.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

__all__ = [
    "GRACE_SECONDS",
    "HEARTBEAT_SECONDS",
    "MAX_RETRIES",
    "SQLITE_FILE",
    "STORAGE_VARIABLE",
    "StorageError",
    "exclusively",
    "heartbeat",
    "hide_password",
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
    url = given or os.environ.get(STORAGE_VARIABLE)
    return url or f"sqlite:///{(folder / SQLITE_FILE).resolve()}"


def hide_password(url: str) -> str:
    """Returns a storage's URL as it may be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def open_storage(url: str) -> RDBStorage:
    """Opens a storage, whose tables are made if they are missing.

    Args:
        url: As SQLAlchemy takes it, such as ``postgresql+psycopg://user@host/database``.

    Raises:
        StorageError: If the URL is none, its driver is missing or the server cannot be reached.
    """
    shown = hide_password(url)
    try:
        engine = make_url(url)
        if engine.get_backend_name() not in _BACKENDS:
            raise ArgumentError
        is_file = engine.get_backend_name() == "sqlite"
        with without_experimental_warnings():
            return RDBStorage(
                url,
                engine_kwargs={
                    # Another worker may write for a while; a server's dead connections are renewed.
                    "connect_args": {"timeout": 60} if is_file else {"connect_timeout": 10},
                    "pool_pre_ping": not is_file,
                },
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MAX_RETRIES),
            )
    except (ImportError, NoSuchModuleError) as error:
        raise StorageError(
            f"storage {shown!r} needs a driver: {error}; pip install 'nasbench-at[postgres]'"
        ) from None
    except ArgumentError:
        raise StorageError(
            "storage must be a URL of sqlite or postgresql, such as "
            f"postgresql+psycopg://user@host/database, got {shown!r}"
        ) from None
    except OUTAGES as error:
        raise StorageError(f"storage {shown!r} cannot be reached: {_reason(error)}") from None


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


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split("\n[SQL")[0].split())[:200]
