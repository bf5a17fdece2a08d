from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nasbench_at.presets import resolve
from studies.trial_process import TrialJob, TrialProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def process(base, tmp_path: Path) -> TrialProcess:
    """A trial that has just begun, and is not training yet."""
    return TrialProcess(
        TrialJob(
            config=resolve(base),
            runs_dir=tmp_path,
            data_root=None,
            device="cpu",
            ranks=1,
            attacks=("pgd",),
            aa_samples=None,
            log=tmp_path / "log",
        )
    )


def test_trial_that_is_stopped_outside_of_training_is_interrupted_and_not_failed(process):
    process.stop()
    assert process.outcome.kind == "interrupted"


def test_trial_that_others_end_has_failed(process):
    process._process.terminate()
    assert process.outcome.kind == "failed"
    assert process.outcome.message == f"its process was ended by {signal.SIGTERM.name}"
