from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers import BruteForceSampler, GridSampler, RandomSampler

from studies.replay import PRUNERS, RecordedRun, SearchPath, TabularTraining, run_search
from studies.replay.search import MAX_IDLE
from tests.studies.replay.test_regret import CURVES, SECONDS, make_objective

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BLOCKS = ("blocks.dense", "blocks.residual")
BOTH = {"blocks.dense": True, "blocks.residual": True}
DENSE = {"blocks.dense": True, "blocks.residual": False}


def make_training(seed=0, num_seeds=1) -> TabularTraining:
    objective = make_objective(num_seeds=num_seeds)
    return TabularTraining(objective, objective.recorded_runs(), seed)


def queue(training, *points, pruner=None):
    """Returns the study after these trials."""
    study = optuna.create_study(direction="maximize", pruner=pruner or PRUNERS["none"](4))
    for point in points:
        study.enqueue_trial(point)
    study.optimize(training, n_trials=len(points))
    return study


def test_trial_reports_each_epoch_and_is_told_what_the_run_kept():
    training = make_training()
    (trial,) = queue(training, DENSE).trials
    assert list(trial.intermediate_values.values()) == CURVES["dense"]
    assert list(trial.intermediate_values) == [1, 2, 3, 4]
    assert trial.value == max(CURVES["dense"])
    assert training.seconds == pytest.approx(SECONDS)


def test_run_that_keeps_the_last_epoch_is_told_so():
    objective = make_objective(num_seeds=1, select_on="last")
    training = TabularTraining(objective, objective.recorded_runs(), 0)
    assert queue(training, DENSE).trials[0].value == CURVES["dense"][-1]


def test_combination_asked_for_again_costs_nothing():
    training = make_training()
    queue(training, DENSE, DENSE, BOTH, DENSE)
    assert training.seconds == pytest.approx(2 * SECONDS)


class StopAfter(optuna.pruners.BasePruner):
    """Stops the first trials after so many epochs each."""

    def __init__(self, *epochs):
        self.epochs = epochs

    def prune(self, study, trial):
        limits = dict(enumerate(self.epochs))
        return trial.last_step >= limits.get(trial.number, np.inf)


def test_pruned_training_costs_what_it_ran_and_goes_on_from_there():
    training = make_training()
    study = queue(training, DENSE, DENSE, DENSE, pruner=StopAfter(1, 3))
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED", "COMPLETE"]
    assert [len(trial.intermediate_values) for trial in study.trials] == [1, 3, 4]
    assert training.seconds == pytest.approx(SECONDS)  # each epoch once

    training = make_training()
    queue(training, DENSE, BOTH, pruner=StopAfter(1))
    assert training.seconds == pytest.approx(1.25 * SECONDS)


def test_unknown_combination_costs_nothing_and_is_pruned():
    training = make_training()
    study = queue(training, dict.fromkeys(BLOCKS, False))
    assert study.trials[0].state.name == "PRUNED"
    assert training.seconds == 0
    queue(training, DENSE, dict.fromkeys(BLOCKS, False))
    assert training.latest is None


def test_training_that_has_ended_is_not_pruned():
    study = queue(make_training(), DENSE, pruner=StopAfter(4))
    assert study.trials[0].state.name == "COMPLETE"


def test_seed_draws_the_runs_that_stand_for_the_networks():
    told = {
        tuple(queue(make_training(seed, num_seeds=8), point).trials[0].value for point in (DENSE,))
        for seed in range(30)
    }
    assert len(told) == 8
    again = [queue(make_training(3, num_seeds=8), DENSE).trials[0].value for _ in range(2)]
    assert again[0] == again[1]


def test_search_tries_everything_and_chooses_what_it_was_told_is_best():
    training = make_training()
    path = run_search(training, BruteForceSampler(seed=0), PRUNERS["none"](4), np.inf)
    assert path.seconds[-1] == pytest.approx(3 * SECONDS)
    assert len(path.seconds) == 4  # the empty set, too
    objective = make_objective(num_seeds=1)
    best = objective.recorded_runs().index(max(objective.recorded_runs(), key=told_of))
    assert path.chosen[-1] == best


def told_of(runs: list[RecordedRun]) -> float:
    return runs[0].told


def test_search_ends_when_its_money_is_spent():
    path = run_search(make_training(), BruteForceSampler(seed=1), PRUNERS["none"](4), SECONDS)
    assert path.seconds[-1] == pytest.approx(SECONDS)
    assert len([s for s in path.seconds if s]) == 1


def test_search_that_asks_only_for_what_is_known_ends():
    sampler = GridSampler({name: [True] for name in BLOCKS}, seed=0)

    class Same(RandomSampler):
        def sample_independent(self, *args):
            return True

    path = run_search(make_training(), Same(seed=0), PRUNERS["none"](4), np.inf)
    assert path.seconds == [pytest.approx(SECONDS)] * (MAX_IDLE + 1)
    assert len(run_search(make_training(), sampler, PRUNERS["none"](4), np.inf).seconds) == 1


def test_path_says_what_was_chosen_for_so_much():
    path = SearchPath(seconds=[1.0, 1.0, 3.0], chosen=[-1, 5, 2])
    spent = np.array([0.5, 1.0, 2.9, 3.0, 9.0])
    assert path.at(spent).tolist() == [-1, 5, 5, 2, 2]
    assert SearchPath().at(spent).tolist() == [-1] * 5


def test_search_says_nothing_and_leaves_optuna_as_talkative_as_it_was():
    seen = []

    class Listening(RandomSampler):
        def before_trial(self, *args):
            seen.append(optuna.logging.get_verbosity())

    before = optuna.logging.get_verbosity()
    run_search(make_training(), Listening(seed=0), PRUNERS["none"](4), SECONDS)
    assert set(seen) == {optuna.logging.ERROR}
    assert optuna.logging.get_verbosity() == before < optuna.logging.ERROR


@pytest.mark.parametrize("name", PRUNERS)
def test_no_pruner_costs_more_than_none(name):
    costs = []
    for pruner in (PRUNERS["none"], PRUNERS[name]):
        training = make_training()
        sampler = BruteForceSampler(seed=0)
        run_search(training, sampler, pruner(4), np.inf)
        costs.append(training.seconds)
    assert costs[1] <= costs[0] + 1e-9


@pytest.mark.parametrize("name", PRUNERS)
def test_search_is_the_same_again(name):
    def seconds(seed):
        training = make_training(seed)
        return run_search(training, BruteForceSampler(seed=seed), PRUNERS[name](4), np.inf).seconds

    first, again = ([seconds(seed) for seed in range(20)] for _ in range(2))
    assert first == again
