from __future__ import annotations

import re
from statistics import fmean

import numpy as np
import pytest

from nasbench_at import Architecture
from nasbench_at.records import Benchmark
from tests.nasbench_at.conftest import one_line
from tests.nasbench_at.records.tables import NUM_CLASSES, SHAPE, write_run, write_runs


@pytest.fixture
def runs(tmp_path) -> Benchmark:
    write_runs(tmp_path / "runs")
    Benchmark.load(tmp_path / "runs").save(tmp_path / "all.parquet")
    return Benchmark.load(tmp_path / "all.parquet")


def network(*blocks: str) -> Architecture:
    return Architecture(blocks, num_modules=3, num_classes=NUM_CLASSES, input_shape=SHAPE)


def test_accuracy_is_the_mean_over_seeds(runs):
    found = runs.accuracies_of(blocks=("residual", "dense"), method="at")
    assert found.seeds == (0, 1, 2)
    assert found.accuracies == (0.5, 0.55, 0.6)
    assert found.mean == pytest.approx(0.55)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(0.55)
    assert runs.accuracy_of(blocks=("residual", "dense"), method="at") == found.mean
    assert runs.accuracy_of(attack="natural", method="trades") == 1.0


def test_isomorphic_networks_are_the_same(runs):
    for blocks in (("residual", "dense"), ("dense", "residual")):
        found = runs.accuracies_of(network(*blocks))
        assert found.accuracies == (0.5, 0.55, 0.6)


def test_a_seed_at_random_is_drawn_anew(runs):
    draws = {"seeds": np.random.default_rng(0), "blocks": ("residual", "dense")}
    values = [runs.accuracy_of(**draws) for _ in range(300)]
    assert set(values) == {0.5, 0.55, 0.6}
    assert fmean(values) == pytest.approx(0.55, abs=0.01)
    again = np.random.default_rng(0)
    assert runs.accuracy_of(network("dense", "residual"), seeds=again) == values[0]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"blocks": ("ssp2",)}, r"no record has blocks=\[ssp2\]; there is \[mbconv, dense\], \["),
        ({"method": "mart"}, "no record has method=mart; there is at, trades"),
        ({"data": "cifar10"}, "no record has data=cifar10; there is digits"),
        ({"methd": "at"}, "no configuration key 'methd'; did you mean 'method'"),
        ({"method": "at"}, "one configuration must be asked for, got 2, which differ in blocks"),
        ({"method": "trades", "attack": "aa"}, "none of 2 runs was evaluated by 'aa'; there is na"),
        ({"method": "trades", "seeds": "max"}, "seeds must be 'mean' or a generator of numpy, got"),
        ({"network": network("ssp2")}, r"no record of the network \w+ of \[ssp2\] .*there are 2"),
        (
            {"network": Architecture(("residual", "dense"))},
            r"for images \(3, 32, 32\); there are 2",
        ),
    ],
)
def test_what_is_not_there_is_one_line(query, message, runs):
    with pytest.raises(ValueError, match=message) as error:
        runs.accuracy_of(**query)
    one_line(error)


def test_compare_says_what_there_is(runs):
    with pytest.raises(ValueError, match="no record has method=mart; there is at, trades"):
        runs.compare({"method": "mart"}, {"method": "trades"})
    blocks = ("mbconv", "dense")
    found = runs.compare({"method": "trades"}, {"method": "at", "blocks": blocks})
    assert found.differences == pytest.approx([0.05, 0.1])


def test_mixed_protocols_have_no_mean(runs, tmp_path):
    shared = {"blocks": ("residual", "dense"), "method": "at"}
    write_run(tmp_path / "more", 3, eps=0.3, seed=9, **shared)
    mixed = Benchmark([*runs, *Benchmark.load(tmp_path / "more")])
    with pytest.raises(ValueError, match=re.escape("differ in eps (0.1 and 0.3)")) as error:
        mixed.accuracy_of(**shared)
    one_line(error)


def test_interval_of_one_seed_is_refused(runs):
    found = runs.query(seed=0).accuracies_of(method="trades")
    assert found.mean == 0.8
    with pytest.raises(ValueError, match="interval of 'pgd' over seeds needs at least 2, got 1"):
        _ = found.interval
