from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nasbench_at import RunConfig
from nasbench_at.presets import resolve
from studies.trial_process import Outcome, TrialJob, TrialProcess
from tests.studies.conftest import tiny_run

pytestmark = pytest.mark.slow


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


def pids(process: TrialProcess) -> list[int]:
    return [rank.process.pid for rank in process._ranks]


def wait_for_epochs(process: TrialProcess, runs: Path, count: int) -> None:
    while sum(len(f.read_text().splitlines()) for f in runs.glob("*/metrics.jsonl")) < count:
        assert not process.wait(0.05), process.outcome


@pytest.mark.parametrize("ranks", [1, 2])
def test_trial_that_is_stopped_outside_of_training_is_interrupted_and_not_failed(
    ranks, base, tmp_path
):
    process = start(resolve(base), tmp_path, ranks)
    process.stop()
    assert process.outcome.kind == "interrupted"


def test_trial_that_others_end_has_failed(base, tmp_path):
    process = start(resolve(base), tmp_path)
    os.kill(pids(process)[0], signal.SIGTERM)
    assert process.outcome == Outcome("failed", "its process was ended by SIGTERM")


def test_ranks_that_are_told_to_stop_by_others_are_interrupted(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, epochs=100)), tmp_path, ranks=2)
    wait_for_epochs(process, tmp_path, 1)
    for pid in pids(process):
        os.kill(pid, signal.SIGTERM)
    assert process.outcome.kind == "interrupted"
    assert "SIGTERM" in process.outcome.message


def test_rank_that_the_kernel_kills_takes_the_others_with_it(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, epochs=100)), tmp_path, ranks=2)
    wait_for_epochs(process, tmp_path, 1)
    os.kill(pids(process)[1], signal.SIGKILL)
    assert process.outcome == Outcome("out_of_memory", "its process was ended by SIGKILL")
    assert process.wait(0)


def test_ranks_name_the_error_that_stopped_them(stripes, tmp_path):
    process = start(resolve(tiny_run(stripes, lr=1e30)), tmp_path, ranks=2)
    assert process.outcome.kind == "failed"
    assert process.outcome.message.startswith("FloatingPointError: ")


def test_trial_whose_file_changed_has_failed_and_says_which(base, tmp_path):
    plugin = tmp_path / "my_blocks.py"
    plugin.write_text("first = 1")
    config = resolve(replace(base, plugins=(str(plugin),)))
    plugin.write_text("first = 2")
    process = start(config, tmp_path)
    assert process.outcome.kind == "failed"
    assert "my_blocks.py' has changed since the run was made" in process.outcome.message
    assert not list(tmp_path.glob("*/last.pt"))
