from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import optuna
import pytest
import yaml

import studies.optunahub
from studies.optunahub import Problem
from tests.studies.replay.test_regret import make_table

BOTH = {"blocks.dense": True, "blocks.residual": True}
NONE = dict.fromkeys(BOTH, False)


@pytest.fixture
def table(tmp_path):
    make_table(num_seeds=3).save(tmp_path / "runs.parquet")
    return str(tmp_path / "runs.parquet")


def test_mean_over_seeds_is_looked_up(table):
    problem = Problem(table)
    assert list(problem.search_space) == ["blocks.dense", "blocks.residual"]
    assert problem.directions == [optuna.study.StudyDirection.MAXIMIZE]
    assert problem.evaluate(BOTH) == pytest.approx(0.61)
    with pytest.raises(optuna.TrialPruned, match="no record of this combination"):
        problem.evaluate(NONE)


def test_seed_draws_one_run_at_a_time(table):
    values = [Problem(table, seed=seed).evaluate(BOTH) for seed in range(20)]
    assert {round(value, 2) for value in values} == {0.60, 0.61, 0.62}
    assert values == [Problem(table, seed=seed).evaluate(BOTH) for seed in range(20)]
    problem = Problem(table, seed=0)
    assert len({problem.evaluate(BOTH) for _ in range(20)}) == 3


def test_study_finds_the_best_combination(table):
    problem = Problem(table, attack="pgd")
    study = optuna.create_study(
        directions=problem.directions, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(problem, n_trials=20)
    assert study.best_params == BOTH
    states = {trial.state.name for trial in study.trials}
    assert states == {"COMPLETE", "PRUNED"}


def test_where_optunahub_is_installed_it_is_one_of_its_problems(monkeypatch, table):
    class BaseProblem:
        pass

    hub, benchmarks = ModuleType("optunahub"), ModuleType("optunahub.benchmarks")
    benchmarks.BaseProblem = BaseProblem
    monkeypatch.setitem(sys.modules, "optunahub", hub)
    monkeypatch.setitem(sys.modules, "optunahub.benchmarks", benchmarks)
    try:
        found = importlib.reload(studies.optunahub).Problem
        assert issubclass(found, BaseProblem)
        assert found(table).evaluate(BOTH) == pytest.approx(0.61)
    finally:
        monkeypatch.undo()
        importlib.reload(studies.optunahub)


def test_readme_has_what_the_hub_asks_for():
    text = (Path(studies.optunahub.__file__).parent / "README.md").read_text()
    head = yaml.safe_load(re.match(r"---\n(.*?)---\n", text, re.DOTALL)[1])
    assert set(head) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "benchmark" in head["tags"]
    for section in ("## Abstract", "## APIs", "## Installation", "## Example"):
        assert section in text
