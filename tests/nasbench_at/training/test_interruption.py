from __future__ import annotations

import errno
import os
import shutil
import signal
import threading

import pytest
import torch

import nasbench_at.commands.console as console
from nasbench_at.cli import main
from nasbench_at.training.checkpoints import load_checkpoint
from nasbench_at.training.interruption import StopRequest, stop_on_signals
from nasbench_at.training.optimizers import Optimizers
from tests.nasbench_at.conftest import tiny_flags

from .processes import finish, results, start, wait_until


def words(runs, *more, **changes):
    return ["train", "--device", "cpu", "--runs-dir", str(runs), *tiny_flags(**changes), *more]


def only_run(runs):
    (folder,) = runs.iterdir()
    return folder


def progress(runs):
    return load_checkpoint(only_run(runs) / "last.pt")["progress"]


def has_finished_an_epoch(runs):
    return any(path.stat().st_size > 0 for path in runs.glob("*/metrics.jsonl"))


def complaint(capsys):
    shown = ("epoch ", "nasbench-at: warning: the best epoch is selected on")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(shown)]
    return line


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_collected_and_the_handlers_are_put_back(number):
    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    with stop_on_signals() as request:
        assert request.signal_name is None
        os.kill(os.getpid(), number)
        assert request.signal_name == number.name
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


def test_second_signal_interrupts_at_once():
    request = StopRequest()
    request.receive(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt, match=r"^SIGTERM$"):
        request.receive(signal.SIGTERM, None)


def test_other_threads_leave_the_signals_alone():
    seen = []

    def look():
        with stop_on_signals() as request:
            seen.append((signal.getsignal(signal.SIGTERM), request.signal_name))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


LONG = {"epochs": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    assert finish(start(words(runs, **LONG))) == 0
    return results(only_run(runs))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_the_same_command_goes_on(number, undisturbed, tmp_path):
    runs, log = tmp_path / "runs", tmp_path / "log.txt"
    process = start(words(runs, **LONG), log)
    wait_until(lambda: has_finished_an_epoch(runs), process)
    os.kill(process.pid, number)
    assert finish(process) == 75
    epoch, step = progress(runs)["epoch"], progress(runs)["step"]
    assert epoch >= 1
    assert 0 <= step < 9
    # The metrics that were waited for appear just before the end of the epoch.
    place = f"in epoch {epoch + 1} after step {step} of 9" if step else f"after epoch {epoch} of 4"
    assert log.read_text().splitlines()[-1] == (
        f"nasbench-at: {number.name}: stopped {place}; the same command goes on"
    )
    assert not (only_run(runs) / "record.json").exists()
    assert finish(start(words(runs, **LONG))) == 0
    assert results(only_run(runs)) == undisturbed


@pytest.mark.slow
def test_second_process_on_the_folder_is_refused_and_the_first_goes_on(tmp_path):
    runs, log = tmp_path / "runs", tmp_path / "log.txt"
    endless = words(runs, epochs=10_000)
    process = start(endless)
    wait_until(lambda: has_finished_an_epoch(runs), process)
    assert finish(start(endless, log)) == 2
    *_, line = log.read_text().splitlines()  # the others are about so few images of one's own
    assert line == (f"nasbench-at: run folder {str(only_run(runs))!r} is in use by another process")
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 75


# --- disk full, weights that are not finite


@pytest.fixture
def after_first_epoch(monkeypatch):
    """Returns a function that has something done when the first epoch is reported."""

    def register(action):
        epoch = console.ConsoleReporter.epoch

        def report(reporter, row):
            epoch(reporter, row)
            if row["epoch"] == 1:
                action()

        monkeypatch.setattr(console.ConsoleReporter, "epoch", report)

    return register


def full_disk(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_one_line_and_keeps_what_was_there(
    run, tmp_path, after_first_epoch, monkeypatch, capsys
):
    runs = tmp_path / "again"
    with monkeypatch.context() as patch:
        after_first_epoch(lambda: patch.setattr(os, "fsync", full_disk))
        assert main(words(runs)) == 1
    assert "No space left on device" in complaint(capsys)
    assert progress(runs)["epoch"] == 1
    names = {path.name for path in only_run(runs).iterdir()}
    assert names == {".lock", "config.yaml", "last.pt", "best.safetensors", "metrics.jsonl"}
    assert main(words(runs)) == 0
    assert results(only_run(runs)) == results(run)


def test_disk_that_is_full_from_the_start_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "fsync", full_disk)
    assert main(words(tmp_path / "again")) == 1
    assert "No space left on device" in complaint(capsys)


@pytest.mark.parametrize("minutes", ["0", "60"])
def test_weights_that_are_not_finite_are_never_saved(minutes, run, tmp_path, monkeypatch, capsys):
    runs, (path, num_steps) = tmp_path / "again", (tmp_path / "again" / run.name, [0])
    step = Optimizers.step

    def break_a_weight(optimizers, scaler):
        step(optimizers, scaler)
        num_steps[0] += 1
        if num_steps[0] == 6:  # the last step of the second epoch
            with torch.no_grad():
                optimizers.blocks.param_groups[0]["params"][0].view(-1)[0] = float("nan")

    with monkeypatch.context() as patch:
        patch.setattr(Optimizers, "step", break_a_weight)
        assert main(words(runs, "--checkpoint-minutes", minutes)) == 1
    line = complaint(capsys)
    assert "a weight is not finite in epoch 2" in line
    assert str(path) in line
    state = load_checkpoint(path / "last.pt")
    assert all(tensor.isfinite().all() for tensor in state["training_step"]["network"].values())
    assert main(words(runs)) == 0
    assert results(path) == results(run)


def test_weights_that_break_within_an_epoch_are_not_saved_either(tmp_path, monkeypatch, capsys):
    step = Optimizers.step

    def break_a_weight(optimizers, scaler):
        step(optimizers, scaler)
        with torch.no_grad():
            optimizers.blocks.param_groups[0]["params"][0].view(-1)[0] = float("inf")

    monkeypatch.setattr(Optimizers, "step", break_a_weight)
    runs = tmp_path / "runs"
    assert main(words(runs, "--checkpoint-minutes", "0")) == 1
    assert "not finite" in complaint(capsys)
    assert not (only_run(runs) / "last.pt").exists()
    shutil.rmtree(runs)
