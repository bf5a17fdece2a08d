"""What can happen to a machine: memory runs out, the disk is full, the database is held."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from studies import StudyInterruptedError, recipes, run_study
from studies.config import StudyConfig, study_folder
from tests.studies.conftest import tiny_run
from tests.studies.test_run_study import RunningStudy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# A block whose first network finds no memory, as on a GPU that others use too.
HUNGRY = """
from pathlib import Path
import torch
from blocks import register_block
from blocks.plain_conv import PlainConv

@register_block("hungry", summary="s", reference="r", kind="handcrafted")
class Hungry(PlainConv):
    def forward(self, x):
        marker = Path(__file__).with_name("was_hungry")
        if x.device.type != "meta" and not marker.exists():
            marker.touch()
            {action}
        return super().forward(x)
"""


def one_run(base) -> StudyConfig:
    return replace(recipes.block_space(base, sizes=(len(base.blocks),)), attacks=("pgd",))


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ('raise torch.OutOfMemoryError("CUDA out of memory")', "OutOfMemoryError: CUDA out of"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
    ],
    ids=["cuda", "kernel"],
)
def test_trial_without_memory_is_tried_again(
    action, error, stripes, tmp_path, monkeypatch, own_registry
):
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "hungry.py"
    plugin.write_text(HUNGRY.format(action=action))
    base = tiny_run(stripes, blocks=("hungry",), plugins=(str(plugin),), epochs=1)
    result = run_study(one_run(base), device="cpu")
    first, second = result.study.get_trials()
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert error in first.user_attrs["error"]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(disk)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk_stops_the_study_and_loses_nothing(small_disk, stripes, tmp_path):
    config = one_run(tiny_run(stripes, epochs=1))
    storage = f"sqlite:///{tmp_path}/study.db"
    with pytest.raises(StudyInterruptedError, match="stopped with 0 of 1 trials done"):
        run_study(config, runs_dir=small_disk, storage=storage, device="cpu")
    log = (study_folder(small_disk, config.name) / "logs" / "worker-0.log").read_text()
    assert "No space left on device" in log
    assert "make room, then start the same command: trial 0 waits in the queue" in log
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    result = run_study(config, runs_dir=small_disk, storage=storage, device="cpu")
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE]


def test_database_that_is_held_for_twenty_seconds_is_waited_for(stripes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = RunningStudy(one_run(tiny_run(stripes, epochs=8, attack_steps=4)))
    study.wait_for_epochs(2)
    holder = sqlite3.connect(study.folder / "study.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    held = threading.Event()
    held.wait(20)
    holder.execute("COMMIT")
    holder.close()
    assert study.finish() == 0
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE]
