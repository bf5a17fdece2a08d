from __future__ import annotations

import json
import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from nasbench_at.records.run_folders import StudyRuns
from studies.queue import claim_trial, fill_queue
from studies.recipes import search
from studies.results import Compute, StudyResult, StudyStatus, list_runs
from studies.study import OpenStudy, create_or_open_study
from studies.suggestion import suggest_run
from tests.nasbench_at.records.test_records import make_record, write


def open_filled(config, tmp_path) -> OpenStudy:
    opened = create_or_open_study(config, f"sqlite:///{tmp_path}/s.db", runs_dir=tmp_path)
    fill_queue(opened)
    return opened


def tell(opened: OpenStudy, *values: float, state: TrialState = TrialState.COMPLETE) -> None:
    trial = claim_trial(opened, "w")
    assert trial is not None
    trial.set_user_attr("run_id", suggest_run(opened.config, trial, opened.images).config.run_id)
    if state == TrialState.COMPLETE:
        opened.study.tell(trial, list(values))
    else:
        trial.set_user_attr("error", "it broke")
        opened.study.tell(trial, state=state)


def test_status_counts_slots_by_state(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.5)
    tell(opened, state=TrialState.FAIL)
    claim_trial(opened, "w")
    status = StudyStatus.of(opened)
    assert status.counts == {
        "complete": 1,
        "pruned": 0,
        "running": 1,
        "waiting": 0,
        "failed": 1,
    }
    assert (status.num_done, status.best, status.errors) == (1, 0.5, {1: "it broke"})
    assert not status.is_finished


def test_best_is_that_of_the_trials_within_the_budget(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    for value, excess in ((0.9, 1.0), (0.5, 0.0)):
        trial = claim_trial(opened, "w")
        trial.set_constraint("parameters", excess)
        opened.study.tell(trial, value)
    assert StudyStatus.of(opened).best == 0.5


def test_time_left_is_that_of_what_has_ended(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    assert StudyStatus.of(opened).seconds_left is None
    tell(opened, 0.5)
    claim_trial(opened, "w")
    trial = opened.study.get_trials()[0]
    mean = trial.duration.total_seconds()
    left = StudyStatus.of(opened).seconds_left
    assert 0 <= left <= 2 * mean


def test_frame_names_objectives_and_leaves_out_errors_that_nobody_made(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.5)
    frame = StudyResult.of(opened, tmp_path).frame()
    assert list(frame["validation_robust"].head(1)) == [0.5]
    assert "error" not in frame
    tell(opened, state=TrialState.FAIL)
    assert list(StudyResult.of(opened, tmp_path).frame()["error"])[1] == "it broke"


def test_best_must_be_feasible(base, tmp_path):
    config = search(base, num_trials=2, pool=("residual", "mbconv"), max_parameters=10_000)
    opened = open_filled(config, tmp_path)
    with pytest.raises(ValueError, match="'search' has no feasible trial that completed"):
        StudyResult.of(opened, tmp_path).best()
    trial = claim_trial(opened, "w")
    trial.set_constraint("seconds_per_step", 0.5)
    opened.study.tell(trial, 0.9)
    with pytest.raises(ValueError, match="no feasible trial"):
        StudyResult.of(opened, tmp_path).best()


def test_best_run_whose_record_is_missing_is_named(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.25)
    tell(opened, 0.75)
    result = StudyResult.of(opened, tmp_path)
    run_id = tiny_study.runs[1].config.run_id
    best = result.best_trial()
    assert best is not None
    assert best.user_attrs["run_id"] == run_id
    with pytest.raises(
        ValueError, match=f"best run of study 'block-space' is missing: {run_id}/rec"
    ):
        result.best()
    assert list(result.pareto()["run_id"]) == [run_id]


def test_completed_runs_without_a_record_are_known(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.25)
    tell(opened, 0.75)
    tell(opened, state=TrialState.FAIL)
    first, second, _ = (planned.config.run_id for planned in tiny_study.runs)
    assert StudyResult.of(opened, tmp_path).missing_runs() == [first, second]
    write(tmp_path, make_record(first))
    assert StudyResult.of(opened, tmp_path).missing_runs() == [second]


def test_damaged_record_is_named_and_left_out(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.25)
    path = tmp_path / tiny_study.runs[0].config.run_id / "record.json"
    path.parent.mkdir()
    path.write_text('{"schema_version": ')
    with pytest.warns(UserWarning, match=f"cannot read record '{path}': "):
        result = StudyResult.of(opened, tmp_path)
    assert len(result.records) == 0
    assert list(result.frame()["validation_robust"].head(1)) == [0.25]


def test_seeded_samplers_choose_by_slot_and_not_by_worker(base, tmp_path):
    config = search(base, num_trials=6, pool=("residual", "mbconv", "dense"), sampler="random")
    chosen = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        opened = open_filled(config, folder)
        trials = [claim_trial(opened, f"{name}{i}") for i in range(6)]
        chosen.append([suggest_run(config, t, opened.images).config.blocks for t in trials])
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) > 1


def test_quasi_random_slots_are_of_one_sequence(base, tmp_path):
    config = search(base, pool=("residual", "mbconv"), weight_decays=(1e-4, 1e-2), sampler="qmc")
    options = {**config.sampler_options, "scramble": True}
    opened = open_filled(replace(config, num_trials=9, sampler_options=options), tmp_path)
    tell(opened, 0.5)  # by which the sampler knows what there is to choose
    trials = [claim_trial(opened, f"w{i}") for i in range(8)]
    configs = [suggest_run(opened.config, trial, opened.images).config for trial in trials]
    eighths = [int(8 * (4 + math.log10(config.weight_decay)) / 2) for config in configs]
    assert sorted(eighths) == list(range(8))
    assert len({config.blocks for config in configs}) > 1


def test_sampler_that_does_not_take_its_options_is_named(tiny_study, tmp_path):
    config = replace(tiny_study, sampler="random", sampler_options={"luck": 7})
    with pytest.raises(ValueError, match=r"sampler 'random' does not take .*\"luck\": 7"):
        create_or_open_study(config, f"sqlite:///{tmp_path}/s.db", runs_dir=tmp_path)


def test_list_of_runs_says_whether_more_will_come(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.5)
    list_runs(opened, tmp_path, "a line")
    first = tiny_study.runs[0].config.run_id
    assert StudyRuns.read(tmp_path) == StudyRuns((first,), is_finished=False, summary="a line")
    tell(opened, 0.5)
    tell(opened, 0.5)
    list_runs(opened, tmp_path)
    runs = StudyRuns.read(tmp_path)
    assert runs.is_finished
    assert len(runs.run_ids) == 3


def test_compute_is_told_against_training_in_full():
    listed = Compute(1.0, 30, 45, is_search=False, space_size=None, exhaustive_epochs=None)
    assert listed.describe() == "30 epochs trained, 45 if all trials were in full"
    found = Compute(1.0, 30, 45, is_search=True, space_size=63, exhaustive_epochs=189)
    assert "189 for all 63 networks of the space (15.87% of that)" in found.describe()
    endless = Compute(1.0, 30, 45, is_search=True, space_size=None, exhaustive_epochs=None)
    assert endless.describe().endswith("the space is not finite")


def test_optuna_is_quiet_only_while_a_study_runs():
    from studies.study import quiet_optuna

    before = optuna.logging.get_verbosity()
    with quiet_optuna():
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    assert optuna.logging.get_verbosity() == before


def test_records_know_their_learning_curves(tiny_study, tmp_path):
    opened = open_filled(tiny_study, tmp_path)
    tell(opened, 0.5)
    run_id = opened.study.get_trials()[0].user_attrs["run_id"]
    write(tmp_path, make_record(run_id))
    line = {"train_accuracy": 0.5, "validation_natural": 0.5, "validation_robust": 0.25}
    (tmp_path / run_id / "metrics.jsonl").write_text(json.dumps({"epoch": 1, **line}) + "\n")
    frame = StudyResult.of(opened, tmp_path).records.learning_curves()
    assert frame.to_dict("records") == [{"run_id": run_id, "epoch": 1, **line}]
