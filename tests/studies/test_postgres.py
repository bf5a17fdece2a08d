"""Many workers on a real database: one dies in mid-trial, the server goes away for a while."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from studies import recipes
from studies.queue import by_slot
from studies.study import open_study
from tests.studies.conftest import tiny_run
from tests.studies.postgres import PostgresServer
from tests.studies.test_run_study import RunningStudy, resumed_epoch, wait_for

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]

FOUR = ("residual", "mbconv", "dense", "ada_rk")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    # The server's user must be allowed into every folder above its own.
    folder = Path(tempfile.mkdtemp(prefix="nasbench-at-postgres-"))
    server = PostgresServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def start_study(server: PostgresServer, stripes: Path, monkeypatch, epochs: int) -> RunningStudy:
    monkeypatch.setenv("NASBENCH_AT_STORAGE", server.url)
    base = tiny_run(stripes, blocks=FOUR, epochs=epochs, attack_steps=4)
    config = replace(recipes.block_space(base, seeds=(0,)), attacks=("pgd",))
    return RunningStudy(config, workers=3)


def check_complete(study: RunningStudy, server: PostgresServer) -> dict[int, list]:
    opened = open_study(study.config.name, server.url)
    slots = by_slot(opened.study.get_trials())
    opened.storage.engine.dispose()
    assert len(slots) == 15
    for tries in slots.values():
        assert [trial.state for trial in tries].count(TrialState.COMPLETE) == 1
    assert len(list(Path("runs").glob("*/record.json"))) == 15
    return slots


def test_three_workers_one_killed_all_complete_none_twice(server, stripes, monkeypatch):
    study = start_study(server, stripes, monkeypatch, epochs=12)
    study.wait_for_epochs(3)
    opened = open_study(study.config.name, server.url)
    victim = None

    def is_in_mid_trial() -> bool:
        nonlocal victim
        for trial in opened.study.get_trials(states=(TrialState.RUNNING,)):
            metrics = Path("runs") / trial.user_attrs.get("run_id", "-") / "metrics.jsonl"
            if metrics.exists() and 2 <= len(metrics.read_text().splitlines()) <= 8:
                victim = trial
                return True
        return False

    wait_for(is_in_mid_trial)
    assert victim is not None
    opened.storage.engine.dispose()
    os.kill(int(victim.user_attrs["worker"].split("-")[-2]), signal.SIGKILL)
    assert study.finish() == 0
    slots = check_complete(study, server)
    retried = [tries for tries in slots.values() if len(tries) > 1]
    assert len(retried) == 1
    ((first, second),) = retried
    assert first.number == victim.number
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert resumed_epoch(second) > 2


def test_outage_of_twenty_seconds_loses_nothing(server, stripes, monkeypatch):
    study = start_study(server, stripes, monkeypatch, epochs=6)
    study.wait_for_epochs(2)
    server.stop()
    time.sleep(20)
    server.start()
    assert study.finish() == 0
    slots = check_complete(study, server)
    assert sum(map(len, slots.values())) == 15
    logs = "".join(path.read_text() for path in (study.folder / "logs").glob("worker-*.log"))
    assert "the storage is away, waiting for it" in logs
