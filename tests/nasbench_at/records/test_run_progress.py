"""Runs followed by what others write into their folders, and what vanishes or is damaged there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from nasbench_at.config import resolve
from nasbench_at.records.metrics import read_whole_metrics
from nasbench_at.records.run_folders import RunFolder, StudyRuns, create_run_folder
from nasbench_at.records.run_progress import FollowedRuns
from tests.nasbench_at.conftest import one_line, tiny_config

START = 1_700_000_000.0
"""When the process began that works in a folder."""


def row(epoch, natural=0.5, robust=0.25, loss=1.0):
    return {
        "epoch": epoch,
        "train_loss": loss,
        "train_accuracy": 0.5,
        "validation_natural": natural,
        "validation_robust": robust,
    }


def make_run(runs_dir, *, seed=0, epochs=4) -> RunFolder:
    folder = create_run_folder(runs_dir, resolve(tiny_config(seed=seed, epochs=epochs)))
    begin(folder, START)
    return folder


def begin(folder, when):
    """A process begins to work in a folder, which is new if this is START."""
    os.utime(folder.lock, (when, when))
    os.utime(folder.path / "config.yaml", (START, START))


def write(folder, rows, when=START):
    folder.write_metrics(rows)
    os.utime(folder.metrics, (when, when))


def states(runs):
    return {run.path.name[-2:]: run.state for run in runs.look()}


def contents(folder):
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- states


def test_state_is_told_from_lock_metrics_and_record(tmp_path):
    folder = make_run(tmp_path)
    runs = FollowedRuns([tmp_path])
    assert states(runs) == {"s0": "waiting"}
    with folder.locked():
        assert states(runs) == {"s0": "running"}
        write(folder, [row(1)])
        assert states(runs) == {"s0": "running"}
    assert states(runs) == {"s0": "interrupted"}
    with folder.locked():
        folder.record.write_text("{}")
        assert states(runs) == {"s0": "done"}  # it only has to let go
    assert states(runs) == {"s0": "done"}


def test_running_runs_come_first_and_done_ones_last(tmp_path):
    done, interrupted, waiting, running = (make_run(tmp_path, seed=seed) for seed in range(4))
    runs = FollowedRuns([tmp_path])
    done.record.write_text("{}")
    write(interrupted, [row(1)])
    with running.locked():
        assert list(states(runs).values()) == ["running", "waiting", "interrupted", "done"]
    assert waiting.path in {run.path for run in runs.look()}


def test_runs_done_before_the_first_look_are_counted_and_left_alone(tmp_path):
    make_run(tmp_path, seed=0).record.write_text("{}")
    new = make_run(tmp_path, seed=1)
    runs = FollowedRuns([tmp_path])
    assert states(runs) == {"s1": "waiting"}
    assert runs.num_done_before == 1
    new.record.write_text("{}")
    assert states(runs) == {"s1": "done"}
    assert runs.num_done_before == 1


def test_looking_writes_nothing(tmp_path):
    folder = make_run(tmp_path)
    write(folder, [row(1)])
    before = contents(tmp_path)
    runs = FollowedRuns([tmp_path])
    runs.look()
    runs.look()
    assert contents(tmp_path) == before


def test_a_run_can_begin_while_somebody_looks(tmp_path):
    folder = make_run(tmp_path)
    stop = threading.Event()

    def look():
        while not stop.is_set():
            folder.is_held  # noqa: B018 - to look takes the lock for an instant

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            with folder.locked():
                assert folder.is_held
    finally:
        stop.set()
        thread.join()


def test_two_may_look_at_the_same_time(tmp_path):
    folder = make_run(tmp_path)
    with folder.lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not folder.is_held


# --- numbers


def test_accuracies_are_those_of_the_last_epoch_and_the_highest(tmp_path):
    folder = make_run(tmp_path)
    write(folder, [row(1, 0.9, 0.2, 2.0), row(2, 0.8, 0.4, 1.5), row(3, 0.7, 0.3, 1.25)])
    (run,) = FollowedRuns([tmp_path]).look()
    assert (run.epoch, run.num_epochs, run.train_loss) == (3, 4, 1.25)
    assert (run.natural, run.best_natural) == (0.7, 0.9)
    assert (run.robust, run.best_robust) == (0.3, 0.4)


def test_epochs_of_a_run_that_never_stopped_are_timed_from_its_begin(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    write(folder, [row(1), row(2)], START + 20)
    monkeypatch.setattr(time, "time", lambda: START + 23)
    with folder.locked():
        begin(folder, START)
        (run,) = FollowedRuns([tmp_path]).look()
    assert run.seconds_per_epoch == 10
    assert run.seconds_left == 2 * 10 - 3


def test_time_left_does_not_fall_below_that_of_the_epochs_to_come(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    write(folder, [row(1), row(2)], START + 20)
    monkeypatch.setattr(time, "time", lambda: START + 1000)
    with folder.locked():
        begin(folder, START)
        (run,) = FollowedRuns([tmp_path]).look()
    assert run.seconds_left == 10


def test_pause_before_a_run_went_on_is_no_part_of_an_epoch(tmp_path):
    folder = make_run(tmp_path)
    write(folder, [row(1)], START + 10)
    runs = FollowedRuns([tmp_path])
    assert runs.look()[0].seconds_per_epoch == 10
    begin(folder, START + 5000)
    assert runs.look()[0].seconds_per_epoch is None
    write(folder, [row(1)], START + 5000)
    assert runs.look()[0].seconds_per_epoch is None
    write(folder, [row(1), row(2), row(3)], START + 5014)
    assert runs.look()[0].seconds_per_epoch == 7


def test_epochs_long_ago_do_not_count_for_the_time_of_one(tmp_path):
    folder = make_run(tmp_path, epochs=20)
    runs = FollowedRuns([tmp_path])
    for epoch in range(1, 11):
        seconds = 100 * min(epoch, 4) + max(epoch - 4, 0)  # slow ones, then six of a second each
        write(folder, [row(i) for i in range(1, epoch + 1)], START + seconds)
        (run,) = runs.look()
    assert run.seconds_per_epoch == 1


def test_time_of_an_epoch_of_a_done_run_is_its_records(run):
    runs = FollowedRuns([run.parent])
    runs._done_before.clear()  # as if it had ended since
    (progress,) = runs.look()
    record = json.loads((run / "record.json").read_text())
    expected = record["provenance"]["train_seconds"] / record["training"]["epochs"]
    assert progress.state == "done"
    assert progress.seconds_per_epoch == expected
    assert progress.seconds_left is None


# --- what is damaged, appears or vanishes


@pytest.mark.parametrize("rest", [b'{"epoch": 2, "tr', b"\xff", b'{"epoch": 2}', b"null"])
def test_line_that_is_not_whole_is_left_for_later(rest, tmp_path):
    folder = make_run(tmp_path)
    runs = FollowedRuns([tmp_path])
    whole = json.dumps(row(1)).encode() + b"\n"
    folder.metrics.write_bytes(whole + rest)
    (progress,) = runs.look()
    assert progress.epoch == 1
    write(folder, [row(1), row(2)])
    assert runs.look()[0].epoch == 2


def test_metrics_that_are_not_there_have_no_lines(tmp_path):
    assert read_whole_metrics(tmp_path / "metrics.jsonl") == []


def test_runs_appear_and_vanish(tmp_path):
    runs = FollowedRuns([tmp_path])
    assert runs.look() == []
    first, second = make_run(tmp_path, seed=1), make_run(tmp_path / "deep", seed=2)
    assert set(states(runs)) == {"s1", "s2"}
    shutil.rmtree(first.path)
    assert set(states(runs)) == {"s2"}
    shutil.rmtree(second.path.parent)
    assert runs.look() == []
    assert runs.num_unreadable == 0


def test_run_that_vanishes_while_it_is_looked_for_is_left_out(tmp_path, monkeypatch):
    first, second = make_run(tmp_path, seed=1), make_run(tmp_path, seed=2)
    runs = FollowedRuns([tmp_path])
    runs.look()

    def vanish(place, **options):
        raise ValueError("cannot read folder: it has just vanished")

    monkeypatch.setattr("nasbench_at.records.run_progress.find_runs", vanish)
    shutil.rmtree(first.path)
    assert [run.path for run in runs.look()] == [second.path]


def test_damaged_configuration_is_counted_until_it_is_mended(tmp_path):
    folder = make_run(tmp_path)
    config = folder.path / "config.yaml"
    text = config.read_text()
    config.write_text("seed: [")
    runs = FollowedRuns([tmp_path])
    assert (runs.look(), runs.num_unreadable) == ([], 1)
    config.write_text(text)
    assert states(runs) == {"s0": "waiting"}
    assert runs.num_unreadable == 0


def test_run_below_two_places_is_shown_once(tmp_path):
    folder = make_run(tmp_path)
    assert len(FollowedRuns([tmp_path, folder.path]).look()) == 1


def test_run_of_a_folder_and_of_a_study_in_it_is_shown_once(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("runs"))
    study.parent.rename("runs/studies")
    (run,) = FollowedRuns([Path("runs"), Path("runs/studies/mine")]).look()
    assert run.path.parent == Path("runs")


def test_done_run_that_vanishes_and_is_trained_again_is_shown(tmp_path):
    make_run(tmp_path).record.write_text("{}")
    runs = FollowedRuns([tmp_path])
    assert runs.look() == []
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert (runs.look(), runs.num_done_before) == ([], 0)
    make_run(tmp_path)
    assert states(runs) == {"s0": "waiting"}


def test_place_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'.*nope' is no folder of runs") as error:
        FollowedRuns([tmp_path / "nope"])
    one_line(error)


# --- the end


def test_runs_are_over_when_all_are_done_at_two_looks(tmp_path):
    folder = make_run(tmp_path)
    runs = FollowedRuns([tmp_path])
    runs.look()
    assert not runs.are_over
    folder.record.write_text("{}")
    runs.look()
    assert not runs.are_over  # the next seed's run may be about to begin
    later = make_run(tmp_path, seed=1)
    runs.look()
    assert not runs.are_over
    later.record.write_text("{}")
    runs.look()
    runs.look()
    assert runs.are_over


def test_runs_that_were_all_done_before_are_over_at_once(tmp_path):
    make_run(tmp_path).record.write_text("{}")
    runs = FollowedRuns([tmp_path])
    runs.look()
    assert runs.are_over


def test_runs_that_vanished_are_over(tmp_path):
    folder = make_run(tmp_path)
    runs = FollowedRuns([tmp_path])
    runs.look()
    shutil.rmtree(folder.path)
    runs.look()
    assert runs.are_over


def test_empty_folder_is_waited_for(tmp_path):
    runs = FollowedRuns([tmp_path])
    runs.look()
    runs.look()
    assert not runs.are_over


# --- studies


@pytest.fixture
def study(tmp_path):
    """The folder of a study that has just been created."""
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("")
    return folder


@pytest.mark.parametrize("listed", [False, True])
def test_study_that_is_not_finished_stands_for_the_runs_beside(listed, study, tmp_path):
    make_run(tmp_path)
    if listed:
        StudyRuns((), is_finished=False).write(study)
    assert states(FollowedRuns([study])) == {"s0": "waiting"}


def test_finished_study_stands_for_its_own_runs(study, tmp_path):
    own = make_run(tmp_path, seed=1)
    make_run(tmp_path, seed=2)
    StudyRuns((own.path.name,), is_finished=True).write(study)
    assert states(FollowedRuns([study])) == {"s1": "waiting"}


@pytest.mark.parametrize("inside", [False, True])
def test_runs_are_not_over_before_a_study_is_finished(inside, study, tmp_path):
    folder = make_run(tmp_path)
    folder.record.write_text("{}")
    runs = FollowedRuns([study if inside else tmp_path])
    runs.look()
    runs.look()
    assert not runs.are_over
    StudyRuns((folder.path.name,), is_finished=True).write(study)
    runs.look()
    assert runs.are_over


def test_study_in_a_relative_path_has_its_runs(tmp_path, monkeypatch):
    study = tmp_path / "studies" / "mine"
    study.mkdir(parents=True)
    monkeypatch.chdir(study)
    StudyRuns(("run",), is_finished=False).write(Path())
    found = StudyRuns.read(Path())
    assert found.folders(Path()) == [tmp_path / "run"]
