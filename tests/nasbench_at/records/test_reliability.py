from __future__ import annotations

import numpy as np
import pytest

from nasbench_at.records import measure_reliability

# Shrout and Fleiss 1979, Table 2: six targets, four judges.
PUBLISHED = ([9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7])


def draw(
    generator: np.random.Generator, networks: int, seeds: int, between: float, within: float
) -> list[list[float]]:
    true = generator.normal(0, between, networks)
    values: list[list[float]] = (
        true[:, None] + generator.normal(0, within, (networks, seeds))
    ).tolist()
    return values


def test_the_published_example():
    found = measure_reliability(PUBLISHED)
    assert round(found.of_means(1), 2) == 0.17
    assert round(found.value, 2) == 0.44
    assert found.num_seeds == 4
    assert found.interval == pytest.approx((0.0, 0.912), abs=5e-4)  # its low end is below 0


def test_networks_with_different_numbers_of_seeds_are_as_the_analysis_of_variance_has_it():
    found = measure_reliability([[0.1, 0.3], [0.5, 0.6, 0.7], [0.9, 0.9, 1.0, 0.8]])
    groups = ([0.1, 0.3], [0.5, 0.6, 0.7], [0.9, 0.9, 1.0, 0.8])
    grand = np.mean(np.concatenate(groups))
    within = sum(((np.array(g) - np.mean(g)) ** 2).sum() for g in groups) / 6
    between = sum(len(g) * (np.mean(g) - grand) ** 2 for g in groups) / 2
    assert found.within == pytest.approx(within)
    assert found.num_seeds == pytest.approx((9 - (4 + 9 + 16) / 9) / 2)
    assert found.between == pytest.approx((between - within) / found.num_seeds)
    assert found.value == pytest.approx(1 - within / between)


def test_means_of_new_seeds_correlate_as_the_reliability_says():
    generator = np.random.default_rng(0)
    values = np.array(draw(generator, 4000, 8, 1.0, 2.0))
    found = measure_reliability(values[:, :4].tolist())
    correlation = np.corrcoef(values[:, :4].mean(axis=1), values[:, 4:].mean(axis=1))[0, 1]
    assert found.value == pytest.approx(correlation, abs=0.03)
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert found.of_means(12) == pytest.approx(0.75, abs=0.03)


def test_the_interval_covers_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(1)
    truth = 1 / (1 + 1 / 5)
    found = [measure_reliability(draw(generator, 8, 5, 1.0, 1.0)).interval for _ in range(600)]
    covered = np.mean([low <= truth <= high for low, high in found])
    assert 0.92 <= covered <= 0.98


def test_how_many_seeds_a_reliability_takes():
    found = measure_reliability(draw(np.random.default_rng(2), 4000, 4, 1.0, 2.0))
    seeds = found.seeds_for(0.8)
    assert seeds is not None
    assert found.of_means(seeds) >= 0.8 > found.of_means(seeds - 1)


def test_without_noise_and_without_differences():
    exact = measure_reliability([[0.1, 0.1], [0.2, 0.2]])
    assert (exact.value, exact.interval, exact.seeds_for(0.9)) == (1.0, (1.0, 1.0), 1)
    nothing = measure_reliability([[0.1, 0.1], [0.1, 0.1]])
    assert (nothing.value, nothing.interval, nothing.seeds_for(0.9)) == (0.0, (0.0, 0.0), None)
    noise = measure_reliability([[0.1, 0.2], [0.2, 0.1]])
    assert (noise.value, noise.seeds_for(0.5)) == (0.0, None)


@pytest.mark.parametrize(
    ("accuracies", "message"),
    [
        ([[0.1, 0.2]], "reliability needs at least 2 networks, got 1"),
        ([[0.1, 0.2], [0.1]], "reliability needs at least 2 seeds of each network, got 1 of one"),
    ],
)
def test_too_few_runs_are_refused(accuracies, message):
    with pytest.raises(ValueError, match=message):
        measure_reliability(accuracies)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_a_target_out_of_range_is_refused(target):
    with pytest.raises(ValueError, match=rf"target must lie in \(0, 1\), got {target}"):
        measure_reliability([[0.1, 0.2], [0.3, 0.4]]).seeds_for(target)
