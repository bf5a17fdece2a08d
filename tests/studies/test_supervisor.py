from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from studies import supervisor
from studies.study import OpenStudy
from studies.supervisor import StudyInterruptedError, _share, _Supervisor, create_study
from studies.trial_run import WorkerSettings

URL = "postgresql+psycopg://me:hunter2@host/studies"


@pytest.fixture
def gpus(monkeypatch) -> None:
    """Four GPUs, none of which is touched."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def test_worker_gets_its_storage_by_its_environment_alone(tiny_study, tmp_path, monkeypatch):
    started: list[tuple[list[str], dict[str, Any]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **rest: started.append((words, rest)))
    opened = create_study(tiny_study, runs_dir=tmp_path)
    storage: Any = SimpleNamespace(url=URL)
    away = OpenStudy(opened.config, opened.study, storage, opened.images)
    settings = WorkerSettings(tmp_path, Path("data"), "cpu", ranks=2)
    _Supervisor(away, settings, 7, any_code=True)._start(0, 1)
    ((words, rest),) = started
    assert words[3:] == [
        *("study", "worker", "block-space", "--runs-dir", str(tmp_path), "--device", "cpu"),
        *("--ranks", "2", "--data-root", "data", "--any-code"),
    ]
    assert rest["env"]["NASBENCH_AT_STORAGE"] == URL
    assert (rest["env"]["NASBENCH_AT_LIFELINE"], rest["pass_fds"]) == ("7", (7,))
    texts = (file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not any(b"hunter2" in text for text in texts)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("ranks", "visible", "shares"),
    [
        (1, None, ["0", "1", "2", "3", "0"]),
        (2, None, ["0,1", "2,3", "0,1"]),
        (1, "5,7", ["5", "7", "5"]),
    ],
)
def test_workers_share_the_gpus_by_their_ranks(ranks, visible, shares, monkeypatch):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    settings = WorkerSettings(device="cuda", ranks=ranks)
    found = [_share(settings, place, len(shares)) for place in range(len(shares))]
    assert found == [{"CUDA_VISIBLE_DEVICES": share} for share in shares]


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    settings = WorkerSettings(device="cpu")
    assert _share(settings, 0, 1) == {}
    assert _share(settings, 0, 3) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert _share(settings, 0, 3) == {}


@pytest.mark.usefixtures("gpus")
def test_ranks_without_a_gpu_each_are_refused():
    with pytest.raises(ValueError, match="ranks must be at most the number of GPUs, 4, got 5"):
        WorkerSettings(device="cuda", ranks=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 0}, "ranks must be at least 1, got 0"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_settings_of_workers_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        WorkerSettings(**options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_study_that_was_stopped_names_the_signal(number, tiny_study, tmp_path, monkeypatch):
    ended: list[int] = []

    def poll() -> int | None:
        if not ended:
            os.kill(os.getpid(), number)
        return 75 if ended else None

    worker: Any = SimpleNamespace(poll=poll, terminate=lambda: ended.append(75))
    opened = create_study(tiny_study, runs_dir=tmp_path)
    stopped = _Supervisor(opened, WorkerSettings(tmp_path, None, "cpu"), 7, any_code=False)
    monkeypatch.setattr(_Supervisor, "_start", lambda self, place, _: place in self.processes)
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.0)
    stopped.processes[0] = worker
    message = f"^{number.name}: study 'block-space' stopped with 0 of 3 trials done; logs are in"
    with pytest.raises(StudyInterruptedError, match=message):
        stopped.run(1, None)


def test_status_that_takes_long_to_read_is_read_seldom(tiny_study, tmp_path, monkeypatch):
    now, statuses = [0.0], []

    def read_status(opened):
        now[0] += 1.0
        return SimpleNamespace(is_finished=True)

    def sleep(seconds):
        now[0] += seconds

    worker = SimpleNamespace(poll=lambda: 0 if now[0] > 200 else None, terminate=lambda: None)
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(supervisor, "time", clock)
    monkeypatch.setattr(supervisor.StudyStatus, "of", read_status)
    opened = create_study(tiny_study, runs_dir=tmp_path)
    tended = _Supervisor(opened, WorkerSettings(tmp_path, None, "cpu"), 7, any_code=False)
    monkeypatch.setattr(_Supervisor, "_start", lambda self, place, _: place in self.processes)
    tended.processes[0] = worker
    tended.run(1, statuses.append)
    assert len(statuses) == 5  # once in 50 seconds, each of which takes one; the first at once
