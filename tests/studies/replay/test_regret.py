from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from optuna.samplers import BruteForceSampler, RandomSampler
from scipy import stats

from nasbench_at.records import Benchmark
from nasbench_at.records.evaluation import wilson_interval
from nasbench_at.records.measurements import StoredMeasurements
from studies.replay import (
    EVERY_NETWORK,
    PRUNERS,
    SAMPLERS,
    TabularObjective,
    draw_regret,
    regret_by_cost,
)
from tests.studies.replay.test_table import make_run

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SECONDS = 20.0
CURVES = {
    "residual": [0.1, 0.2, 0.3, 0.3],
    "dense": [0.2, 0.5, 0.4, 0.3],
    "both": [0.2, 0.3, 0.5, 0.6],
}
ACCURACIES = {"residual": 0.3, "dense": 0.5, "both": 0.6}


def make_table(num_seeds=3, accuracies=ACCURACIES, *, spread=0.01, **config) -> Benchmark:
    """Three networks with their learning curves; seeds differ by `spread`."""
    records, measurements = [], {}
    for name, seed in itertools.product(accuracies, range(num_seeds)):
        blocks = ("residual", "dense") if name == "both" else (name,)
        shift = spread * seed
        run = make_run(blocks, pgd=accuracies[name] + shift, seed=seed, **config)
        run = dataclasses.replace(run, provenance={"train_seconds": SECONDS})
        rows = [
            {
                "epoch": epoch,
                "lr": 0.1,
                "train_loss": 1.0,
                "train_accuracy": 0.5,
                "validation_natural": 0.9,
                "validation_robust": accuracy + shift,
            }
            for epoch, accuracy in enumerate(CURVES[name], start=1)
        ]
        records.append(run)
        measurements[run.run_id] = StoredMeasurements(run, {"metrics": rows})
    return Benchmark(records, measurements)


def make_objective(num_seeds=3, accuracies=ACCURACIES, **config) -> TabularObjective:
    return TabularObjective(make_table(num_seeds, accuracies, **config), ("blocks",), "pgd")


def replay(objective=None, samplers=("brute",), pruners=("none",), **options):
    objective = objective or make_objective()
    options = {"repetitions": 4, "workers": 1, "shares": (0.2, 0.4, 1.0)} | options
    return regret_by_cost(
        objective,
        {name: SAMPLERS[name] for name in samplers},
        {name: PRUNERS[name] for name in pruners},
        **options,
    )


def test_everything_tried_leaves_no_regret_where_validation_is_right():
    frame = replay()
    brute = frame[frame["sampler"] == "brute"].set_index("share")
    assert brute["regret"][1.0] == 0
    assert brute["best"][1.0] == 1
    assert brute["regret"][0.2] == pytest.approx(0.3)  # of the worst: nothing is trained yet
    assert (brute["best"][0.2], brute["near"][0.2]) == (0, 0)
    last = frame.iloc[-1]
    assert (last["sampler"], last["share"], last["regret"]) == (EVERY_NETWORK, 1.0, 0)


def test_first_of_three_networks_is_equally_likely_each():
    frame = replay(samplers=("random",), repetitions=300, shares=(0.34,))
    row = frame.iloc[0]
    assert row["low"] < (0.3 + 0.1 + 0) / 3 < row["high"]
    assert row["best_low"] < 1 / 3 < row["best_high"]


def test_row_sums_the_repetitions_up():
    objective = make_objective()
    frame = replay(objective, repetitions=12, shares=(0.34,))
    row = frame.iloc[0]
    found = [objective.best - objective.accuracies[path_end(objective, seed)] for seed in range(12)]
    assert row["regret"] == pytest.approx(np.mean(found))
    expected = stats.t.interval(0.95, 11, np.mean(found), stats.sem(found))
    assert (row["low"], row["high"]) == pytest.approx(expected)
    hits = sum(regret == 0 for regret in found)
    assert 0 < hits < 12
    assert row["best"] == hits / 12
    assert (row["best_low"], row["best_high"]) == wilson_interval(hits, 12)


def path_end(objective, seed) -> int:
    """The one network that a search of a third of the cost has trained."""
    from studies.replay import TabularTraining, run_search

    training = TabularTraining(objective, objective.recorded_runs(), seed)
    path = run_search(training, BruteForceSampler(seed=seed), PRUNERS["none"](4), SECONDS)
    return path.chosen[-1]


def test_choice_within_the_interval_of_the_best_is_near_it():
    # Three seeds 0.0, 0.01 and 0.02 apart: the interval of their mean is 0.025 to each side.
    objective = make_objective(accuracies={"residual": 0.57, "dense": 0.58, "both": 0.6})
    assert objective.near_best() == (False, True, True)
    frame = replay(objective, ("random",), repetitions=200, shares=(0.34,))
    assert frame["near_low"][0] < 2 / 3 < frame["near_high"][0]


def test_validation_that_misleads_is_a_regret_that_remains():
    objective = make_objective(accuracies={"residual": 0.3, "dense": 0.7, "both": 0.6})
    frame = replay(objective)
    assert frame.iloc[-1]["regret"] == pytest.approx(0.1)
    assert frame.iloc[-1]["best"] == 0


def test_processes_find_what_one_finds():
    options = {"samplers": ("random", "tpe"), "pruners": ("none", "sha"), "repetitions": 11}
    alone, together = (replay(**options, workers=workers) for workers in (1, 2))
    assert alone.equals(together)


def test_progress_counts_searches():
    seen = []
    replay(repetitions=25, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(10, 25), (20, 25), (25, 25)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplers": ()}, "there must be a sampler and a pruner, got 0 samplers and 1 pruners"),
        ({"pruners": ()}, "got 1 samplers and 0 pruners"),
        ({"repetitions": 1}, "an interval needs at least 2 repetitions, got 1"),
        ({"shares": ()}, r"shares must be in \(0, 1\], ascending, got \(\)"),
        ({"shares": (0.5, 0.1)}, r"shares must be in \(0, 1\], ascending, got \(0.5, 0.1\)"),
        ({"shares": (0.5, 1.1)}, r"got \(0.5, 1.1\)"),
        ({"shares": (0.0, 1.0)}, r"got \(0.0, 1.0\)"),
        ({"objective": make_objective(num_seeds=1)}, "needs at least 2 seeds, got 1"),
    ],
)
def test_bad_replay_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        replay(**changes)
    assert "\n" not in str(error.value)


def test_sampler_that_was_made_already_is_refused():
    samplers = {"a": RandomSampler(seed=0)}
    with pytest.raises(ValueError, match="give the class RandomSampler, or a function of seed"):
        regret_by_cost(make_objective(), samplers, {"none": PRUNERS["none"]})


def test_table_without_curves_or_times_is_refused():
    table = make_table()
    plain = TabularObjective(list(table), ("blocks",), "pgd")
    with pytest.raises(ValueError, match="learning curves need a Benchmark, got a plain sequence"):
        plain.recorded_runs()
    timeless = Benchmark(
        [dataclasses.replace(record, provenance={}) for record in table], table._measurements
    )
    with pytest.raises(ValueError, match="run 'residual-at-s0' has no training time"):
        TabularObjective(timeless, ("blocks",), "pgd").recorded_runs()


def test_figure_has_a_panel_a_pruner_and_a_line_a_sampler():
    frame = replay(samplers=("random", "brute"), pruners=("none", "median"))
    figure = draw_regret(frame)
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("no pruner", "median")
    lines = {line.get_label(): line for line in first.lines}
    assert list(lines) == ["random", "brute", EVERY_NETWORK]
    drawn = frame[(frame["sampler"] == "brute") & (frame["pruner"] == "none")]
    np.testing.assert_allclose(lines["brute"].get_ydata(), 100 * drawn["regret"])
    np.testing.assert_allclose(lines["brute"].get_xdata(), [0.2, 0.4, 1.0])
    assert set(lines[EVERY_NETWORK].get_ydata()) == {100 * frame["regret"].iloc[-1]}
    with pytest.raises(ValueError, match="samplers must be at most 10, got 11"):
        draw_regret(frame.iloc[[0] * 11].assign(sampler=[f"s{n}" for n in range(11)]))
