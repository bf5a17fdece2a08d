from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nasbench_at import RunConfig
from nasbench_at.presets import resolve
from studies.trial_process import TrialJob, TrialProcess

pytestmark = pytest.mark.slow


def start(config: RunConfig, tmp_path: Path) -> TrialProcess:
    return TrialProcess(
        TrialJob(
            config=config,
            runs_dir=tmp_path,
            data_root=None,
            device="cpu",
            ranks=1,
            attacks=("pgd",),
            aa_samples=None,
            log=tmp_path / "log",
        )
    )


@pytest.fixture
def process(base, tmp_path: Path) -> TrialProcess:
    """A trial that has just begun, and is not training yet."""
    return start(resolve(base), tmp_path)


def test_trial_that_is_stopped_outside_of_training_is_interrupted_and_not_failed(process):
    process.stop()
    assert process.outcome.kind == "interrupted"


def test_trial_that_others_end_has_failed(process):
    process._process.terminate()
    assert process.outcome.kind == "failed"
    assert process.outcome.message == f"its process was ended by {signal.SIGTERM.name}"


def test_trial_whose_file_changed_has_failed_and_says_which(base, tmp_path):
    plugin = tmp_path / "my_blocks.py"
    plugin.write_text("first = 1")
    config = resolve(replace(base, plugins=(str(plugin),)))
    plugin.write_text("first = 2")
    process = start(config, tmp_path)
    assert process.outcome.kind == "failed"
    assert "my_blocks.py' has changed since the run was made" in process.outcome.message
    assert not list(tmp_path.glob("*/last.pt"))
