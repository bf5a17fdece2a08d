from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nasbench_at import RunConfig
from nasbench_at.config import dump_config, resolve
from studies import trial_process
from studies.trial_process import Outcome, TrialJob, TrialProcess
from tests.nasbench_at.records.test_records import make_evaluation, make_record
from tests.studies.conftest import tiny_run


def start(config: RunConfig, tmp_path: Path, ranks: int = 1) -> TrialProcess:
    """A trial that has just begun, and is not training yet."""
    return TrialProcess(
        TrialJob(
            config=config,
            runs_dir=tmp_path,
            data_root=None,
            device="cpu",
            ranks=ranks,
            attacks=("pgd",),
            aa_samples=None,
            log=tmp_path / "log",
        )
    )


@pytest.mark.slow
def test_trials_find_all_of_torch_imported(base, tmp_path):
    code = (
        "import sys, importlib; from studies.forkserver import PRELOADED\n"
        "for name in PRELOADED: importlib.import_module(name)\n"
        "before = set(sys.modules)\n"
        "from nasbench_at.config import load_config; from nasbench_at import train\n"
        "train(load_config('run.yaml'), runs_dir='runs', device='cpu')\n"
        "print(*{name for name in set(sys.modules) - before if name.startswith('torch._')})"
    )
    (tmp_path / "run.yaml").write_text(dump_config(base))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""


def pids(process: TrialProcess) -> list[int]:
    return [rank.process.pid for rank in process._ranks]


def wait_for_epochs(process: TrialProcess, runs: Path, count: int) -> None:
    while sum(len(f.read_text().splitlines()) for f in runs.glob("*/metrics.jsonl")) < count:
        assert not process.wait(0.05), process.outcome


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_trial_that_is_stopped_outside_of_training_is_interrupted_and_not_failed(
    ranks, base, tmp_path
):
    process = start(resolve(base), tmp_path, ranks)
    process.stop()
    assert process.outcome.kind == "interrupted"


@pytest.mark.slow
def test_trial_that_others_end_has_failed(base, tmp_path):
    process = start(resolve(base), tmp_path)
    os.kill(pids(process)[0], signal.SIGTERM)
    assert process.outcome == Outcome("failed", "its process was ended by SIGTERM")


@pytest.mark.slow
def test_ranks_that_are_told_to_stop_by_others_are_interrupted(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, epochs=100)), tmp_path, ranks=2)
    wait_for_epochs(process, tmp_path, 1)
    for pid in pids(process):
        os.kill(pid, signal.SIGTERM)
    assert process.outcome.kind == "interrupted"
    assert "SIGTERM" in process.outcome.message


@pytest.mark.slow
def test_rank_that_the_kernel_kills_takes_the_others_with_it(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, epochs=100)), tmp_path, ranks=2)
    wait_for_epochs(process, tmp_path, 1)
    os.kill(pids(process)[1], signal.SIGKILL)
    assert process.outcome == Outcome("out_of_memory", "its process was ended by SIGKILL")
    assert process.wait(0)


@pytest.mark.slow
def test_ranks_name_the_error_that_stopped_them(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, lr=1e30)), tmp_path, ranks=2)
    assert process.outcome.kind == "failed"
    assert process.outcome.message.startswith("FloatingPointError: ")


@pytest.mark.slow
def test_trial_whose_file_changed_has_failed_and_says_which(base, tmp_path):
    plugin = tmp_path / "my_blocks.py"
    plugin.write_text("first = 1")
    config = resolve(replace(base, plugins=(str(plugin),)))
    plugin.write_text("first = 2")
    process = start(config, tmp_path)
    assert process.outcome.kind == "failed"
    assert "my_blocks.py' has changed since the run was made" in process.outcome.message
    assert not list(tmp_path.glob("*/last.pt"))


class ScriptedRank:
    """A rank that says it is done, and ends, when somebody has looked at it so many times."""

    exitcode = 0

    def __init__(self, looks: float, messages: Connection) -> None:
        self.looks = looks
        self.messages = Connection(os.dup(messages.fileno()), readable=False)
        self.sentinel, self.writer = os.pipe()
        os.write(self.writer, b"!")
        self.is_over = False

    def start(self) -> None:
        pass

    terminate = join = start

    def kill(self) -> None:
        self.is_over = True
        self.exitcode = -signal.SIGKILL

    def is_alive(self) -> bool:
        self.looks -= 1
        if self.looks < 0 and not self.is_over:
            self.messages.send(("end", (time.monotonic(), Outcome("done"))))
            self.is_over = True
        return not self.is_over


def scripted(monkeypatch, base: RunConfig, tmp_path: Path, *looks: float) -> TrialProcess:
    def process(target: object, args: tuple[Any, ...]) -> ScriptedRank:
        return ScriptedRank(looks[args[1]], args[3])

    context = SimpleNamespace(Pipe=get_context().Pipe, Process=process)
    monkeypatch.setattr(trial_process, "trial_context", lambda: context)
    return start(resolve(base), tmp_path, ranks=len(looks))


@pytest.mark.parametrize("looks", range(6))
def test_rank_that_ends_between_two_looks_is_done(looks, base, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_process, "GRACE_SECONDS", 0.0)
    process = scripted(monkeypatch, base, tmp_path, 20, looks)
    assert process.outcome == Outcome("done")


def test_trial_with_a_rank_that_had_to_be_killed_is_not_done(base, tmp_path, monkeypatch):
    monkeypatch.setattr(trial_process, "STOP_SECONDS", 0.0)
    process = scripted(monkeypatch, base, tmp_path, float("inf"), 0)
    process.stop()
    assert process.outcome == Outcome("interrupted", "it did not end in time and was killed")


FULL = {"natural": 0.9, "pgd": 0.5, "aa": 0.4}


@pytest.mark.parametrize(
    ("changes", "attacks", "aa_samples", "expected"),
    [
        ({}, ("pgd", "aa"), None, True),
        ({}, ("pgd", "cw"), None, False),
        ({"eps": 0.3}, ("pgd",), None, False),
        ({"norm": "L2"}, ("pgd",), None, False),
        ({"subset": "half"}, ("pgd",), None, False),
        ({"subset": "half"}, ("pgd",), 10, False),
        ({"subset": "half"}, ("aa",), None, False),
        ({"subset": "half"}, ("aa",), 10, True),
    ],
)
def test_trial_takes_over_what_it_would_measure_alone(changes, attacks, aa_samples, expected):
    record = replace(make_record(), evaluations=(make_evaluation(FULL, **changes),))
    assert trial_process.is_evaluated(record, attacks, aa_samples) is expected
