"""A run that is killed over and over ends with the bits of one that nothing disturbed."""

from __future__ import annotations

import random
import signal
import time

import pytest

from nasbench_at.training.checkpoints import CheckpointError, load_checkpoint
from tests.nasbench_at.conftest import tiny_flags

from .processes import finish, results, start, wait_until

NUM_KILLS = 20
# 152 images in batches of 8, so 114 steps; a life is 5 of them at most, so some are always left.
NUM_EPOCHS, MOST_CHECKPOINTS = 6, 4


def begin(runs):
    words = [
        *tiny_flags(epochs=NUM_EPOCHS, batch_size=8, attack_steps=1),
        *("--validation-fraction", "0.05", "--ema-decay", "0.9"),
        *("--attention-lr", "0.01", "--lr", "0.02"),
        *("--checkpoint-minutes", "0", "--device", "cpu", "--runs-dir", str(runs)),
    ]
    return start(["train", *words])


def version(runs):
    """Changes whenever a checkpoint is written."""
    try:
        return [path.stat().st_mtime_ns for path in runs.glob("*/last.pt")]
    except FileNotFoundError:  # it is being replaced
        return []


def reached(runs):
    """Epoch and step of the newest checkpoint that can be read."""
    for path in (*runs.glob("*/last.pt"), *runs.glob("*/previous-last.pt")):
        try:
            progress = load_checkpoint(path)["progress"]
        except CheckpointError:
            continue
        return progress["epoch"], progress["step"]
    raise AssertionError("no checkpoint was written")


def kill_after(process, runs, num_checkpoints, delay):
    """Kills a process some time after it has written so many checkpoints; returns where it was."""
    for _ in range(num_checkpoints):
        before = version(runs)
        wait_until(lambda: version(runs) not in (before, []), process)  # noqa: B023
    time.sleep(delay)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    return reached(runs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_run_killed_twenty_times_ends_with_the_same_bits(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    draws, places = random.Random(0), []
    for _ in range(NUM_KILLS):
        num_checkpoints, delay = draws.randint(1, MOST_CHECKPOINTS), draws.uniform(0, 0.03)
        places.append(kill_after(begin(killed), killed, num_checkpoints, delay))
    assert places == sorted(places)
    assert len([step for _, step in places if step > 0]) >= NUM_KILLS // 2, places
    assert len({epoch for epoch, _ in places}) >= 3, places
    assert finish(begin(killed)) == 0
    assert finish(begin(undisturbed)) == 0
    (first,), (second,) = killed.iterdir(), undisturbed.iterdir()
    assert results(first) == results(second)
