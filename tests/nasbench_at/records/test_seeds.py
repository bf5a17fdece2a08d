from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nasbench_at.records import Benchmark, mean_interval
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.test_records import make_evaluation, make_record

FIRST = {0: 0.50, 1: 0.55, 2: 0.61, 3: 0.40}
SECOND = {3: 0.33, 2: 0.52, 1: 0.50, 9: 0.10}


def make_runs(method, accuracies, **settings):
    runs = []
    for seed, pgd in accuracies.items():
        record = make_record(f"{method}-{seed}", method=method, pgd=pgd)
        config = {**record.config, "seed": seed}
        evaluation = make_evaluation({"pgd": pgd}, **settings)
        runs.append(replace(record, config=config, evaluations=(evaluation,)))
    return runs


@pytest.fixture
def benchmark():
    return Benchmark(make_runs("at", FIRST, eps=0.1) + make_runs("trades", SECOND, eps=0.1))


def test_interval_is_that_of_the_paired_t_test_over_common_seeds(benchmark):
    comparison = benchmark.compare({"method": "at"}, {"method": "trades"}, "pgd")
    assert comparison.seeds == (1, 2, 3)
    assert comparison.first == (0.55, 0.61, 0.40)
    assert comparison.second == (0.50, 0.52, 0.33)
    test = stats.ttest_rel(comparison.first, comparison.second)
    assert comparison.difference == pytest.approx(0.07)
    assert comparison.interval == pytest.approx(tuple(test.confidence_interval(0.95)), abs=1e-12)


def test_groups_may_be_records(benchmark):
    by_query = benchmark.compare({"method": "at"}, {"method": "trades"})
    groups = (benchmark.query(method="at"), list(benchmark.query(method="trades")))
    assert benchmark.compare(*groups) == by_query


def test_other_order_is_the_opposite_difference(benchmark):
    one = benchmark.compare({"method": "at"}, {"method": "trades"})
    other = benchmark.compare({"method": "trades"}, {"method": "at"})
    low, high = one.interval
    assert other.difference == -one.difference
    assert other.interval == pytest.approx((-high, -low))


def test_one_common_seed_has_a_difference_and_no_interval(benchmark):
    comparison = benchmark.compare({"method": "at", "seed": 1}, {"method": "trades"})
    assert comparison.difference == pytest.approx(0.05)
    assert all(map(math.isnan, comparison.interval))


def test_no_common_seed_names_the_seeds(benchmark):
    message = r"no seed was evaluated by 'pgd' in both groups, got seeds \[0\] and \[1, 2, 3, 9\]"
    with pytest.raises(ValueError, match=message) as error:
        benchmark.compare({"method": "at", "seed": 0}, {"method": "trades"})
    one_line(error)
    with pytest.raises(ValueError, match=r"evaluated by 'aa' in both groups, got seeds \[\] and"):
        benchmark.compare({"method": "at"}, {"method": "trades"}, "aa")


def test_group_of_two_configurations_is_refused(benchmark):
    message = (
        "second group must be one configuration, got two runs of seed 3: 'at-3' and 'trades-3'"
    )
    with pytest.raises(ValueError, match=message) as error:
        benchmark.compare({"method": "at"}, {})
    one_line(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_fingerprint": "d2"}, r"differ in data_fingerprint \('d1' and 'd2'\)"),
        ({"eps": 0.2}, r"differ in eps \(0.1 and 0.2\)"),
    ],
)
def test_other_images_and_other_attacks_are_refused(benchmark, changes, message):
    others = make_runs("trades", SECOND, **changes)
    with pytest.raises(ValueError, match=message) as error:
        benchmark.compare({"method": "at"}, others)
    assert "'at-1' and 'trades-1' cannot be compared by 'pgd'" in one_line(error)


def test_conditions_that_differ_between_seeds_alone_are_refused(benchmark):
    """Each pair agrees, but its mean would be over two radii."""
    groups = [
        make_runs(method, {1: 0.5}) + make_runs(method, {2: 0.5}, eps=0.2)
        for method in ("at", "trades")
    ]
    message = r"'at-1' and 'at-2' cannot be compared by 'pgd'; they differ in eps \(0.1 and 0.2\)"
    with pytest.raises(ValueError, match=message) as error:
        benchmark.compare(*groups)
    one_line(error)


def test_runs_without_a_seed_are_refused(benchmark):
    config = {"model": "mine:net"}
    records = [replace(record, config=config) for record in benchmark]
    with pytest.raises(ValueError, match="run 'at-0' of the first group has no seed"):
        benchmark.compare(records, {"method": "at"})


@pytest.mark.parametrize("count", [2, 3, 30])
def test_mean_interval_is_students(count):
    values = np.random.default_rng(count).normal(size=(count, 4))
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, count - 1, values.mean(axis=0), stats.sem(values, axis=0))
    np.testing.assert_allclose((low, high), expected, rtol=1e-10)


@pytest.mark.parametrize("count", [0, 1])
def test_mean_of_fewer_than_two_has_no_interval(count):
    low, high = mean_interval(np.zeros((count, 3)))
    assert low.shape == high.shape == (3,)
    assert np.isnan([low, high]).all()
