from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from studies.proxies import agreement, correct_tau, measure_agreement, measure_ceiling

RANKED = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_same_order_agrees_and_the_reverse_does_not():
    for scores, expected in ((RANKED, 1), (RANKED[::-1], -1)):
        found = measure_agreement([scores], [[10 * v for v in RANKED]], 1.0)
        assert (found.tau, found.spearman) == (pytest.approx(expected), pytest.approx(expected))
        assert found.tau_interval == (pytest.approx(expected), pytest.approx(expected))
        assert found.corrected == pytest.approx(expected)
        assert found.num_networks == 6


def test_several_rankings_are_averaged_pair_by_pair():
    rng = np.random.default_rng(0)
    scores, accuracies = rng.normal(size=(2, 3, 12))
    found = measure_agreement(scores, accuracies, 1.0)
    pairs = list(zip(scores, accuracies, strict=True))
    assert found.tau == pytest.approx(np.mean([kendalltau(*pair).statistic for pair in pairs]))
    assert found.spearman == pytest.approx(np.mean([spearmanr(*pair).statistic for pair in pairs]))
    low, high = found.tau_interval
    assert -1 <= low < found.tau < high <= 1


def test_correlations_of_samples_are_the_library_s():
    rng = np.random.default_rng(3)
    scores, accuracies = rng.integers(5, size=(2, 2, 9)).astype(float)
    drawn = rng.integers(9, size=(20, 9))
    counts = np.array([np.bincount(rows, minlength=9) for rows in drawn], float)
    taus, spearmans = agreement._correlate(scores, accuracies, counts)
    for rows, tau, spearman in zip(drawn, taus, spearmans, strict=True):
        pairs = [(x[rows], y[rows]) for x, y in zip(scores, accuracies, strict=True)]
        assert tau == pytest.approx(np.mean([kendalltau(*pair).statistic for pair in pairs]))
        assert spearman == pytest.approx(np.mean([spearmanr(*pair).statistic for pair in pairs]))


def test_interval_covers_the_truth_of_uncorrelated_scores():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(40):
        low, high = measure_agreement(
            rng.normal(size=(1, 40)), rng.normal(size=(1, 40)), 1.0, seed=seed
        ).tau_interval
        hits += low < 0 < high
    assert hits >= 34


def test_infinite_score_has_its_rank_and_one_that_is_no_number_is_refused():
    found = measure_agreement([[-math.inf, *RANKED[1:]]], [RANKED], 1.0)
    assert (found.tau, found.spearman) == (pytest.approx(1), pytest.approx(1))
    with pytest.raises(ValueError, match="scores and accuracies must be numbers, got NaN among"):
        measure_agreement([RANKED], [[math.nan, *RANKED[1:]]], 1.0)


def test_scores_that_are_all_equal_say_nothing():
    found = measure_agreement([[1.0] * 6], [RANKED], 1.0)
    assert (found.tau, found.spearman) == (0, 0)


def test_correction_undoes_what_noise_takes_away():
    rng = np.random.default_rng(2)
    score = rng.normal(size=4000)
    true = 0.8 * score + 0.6 * rng.normal(size=4000)
    noisy = true + rng.normal(size=4000)  # reliability one half
    tau = kendalltau(score, noisy).statistic
    assert correct_tau(tau, 0.5) == pytest.approx(kendalltau(score, true).statistic, abs=0.03)
    assert tau < 0.45


def test_correction_stays_within_its_limits():
    assert correct_tau(0.4, 1.0) == pytest.approx(0.4)
    assert correct_tau(0.9, 0.1) == pytest.approx(1)
    assert correct_tau(-0.9, 0.1) == pytest.approx(-1)
    assert math.isnan(correct_tau(0.4, 0.0))


def test_ceiling_is_one_without_noise_and_low_with_it():
    sure = measure_ceiling([[value] * 4 for value in RANKED])
    assert (sure.tau, sure.half_tau) == (pytest.approx(1), pytest.approx(1))
    rng = np.random.default_rng(3)
    noise = measure_ceiling(rng.normal(size=(30, 4)))
    assert noise.tau < 0.6
    assert abs(noise.half_tau) < 0.3


def test_bad_input_is_one_line():
    for scores in ([[1.0, 2.0]], [RANKED[:3], RANKED[:3]], [RANKED]):
        with pytest.raises(ValueError, match="equally many rankings of at least 3 networks, got"):
            measure_agreement(scores, [[1.0, 2.0]] if len(scores[0]) == 2 else [RANKED[:3]], 1.0)
