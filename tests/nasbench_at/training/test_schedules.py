from __future__ import annotations

from dataclasses import replace

import pytest

from nasbench_at import RunConfig
from nasbench_at.config import resolve
from nasbench_at.training.schedules import cyclic_rate, learning_rate, milestone_rate


@pytest.mark.parametrize(
    ("epoch", "factor"), [(1, 1), (59, 1), (60, 0.1), (89, 0.1), (90, 0.01), (120, 0.01)]
)
def test_paper_s_rate_on_cifar10(epoch, factor):
    config = resolve(RunConfig(data="cifar10"))
    rate = milestone_rate(epoch, config.lr, config.milestones, config.milestone_factors)
    assert rate == pytest.approx(0.1 * factor)


@pytest.mark.parametrize(
    ("epoch", "factor"), [(1, 1), (60, 0.1), (90, 0.01), (109, 0.01), (110, 0.005), (120, 0.005)]
)
def test_authors_rate_on_cifar10(epoch, factor):
    config = resolve(RunConfig(data="cifar10", recipe="authors"))
    rate = milestone_rate(epoch, config.lr, config.milestones, config.milestone_factors)
    assert rate == pytest.approx(0.1 * factor)


def test_factors_multiply_the_initial_rate_and_not_each_other():
    assert milestone_rate(9, 0.2, (3, 6), (0.5, 0.5)) == pytest.approx(0.1)


def test_no_milestones_leave_the_rate_constant():
    assert {milestone_rate(epoch, 0.3, (), ()) for epoch in range(1, 20)} == {0.3}


def test_rate_of_equal_milestones_is_the_last():
    assert milestone_rate(5, 1.0, (5, 5), (0.1, 0.01)) == 0.01


def test_rate_never_waits_for_a_first_call():
    forward = [milestone_rate(epoch, 0.1, (3, 5), (0.1, 0.01)) for epoch in range(1, 8)]
    backward = [milestone_rate(epoch, 0.1, (3, 5), (0.1, 0.01)) for epoch in range(7, 0, -1)]
    assert forward == backward[::-1]


# The authors' code (d12306/dsnet): factor on 0.1 at every epoch at which it changes, and before.
AUTHORS_RATES = {
    ("cifar10", "at"): {
        1: 1, 59: 1, 60: 0.1, 89: 0.1, 90: 0.01, 109: 0.01, 110: 0.005, 120: 0.005
    },
    ("cifar10", "mart"): {1: 1, 59: 1, 60: 0.1, 89: 0.1, 90: 0.01},
    ("cifar10", "trades"): {1: 1, 74: 1, 75: 0.1, 85: 0.1},
    ("svhn", "at"): {
        1: 0.2, 2: 0.4, 3: 0.6, 4: 0.8, 5: 1, 6: 1,
        39: 1, 40: 0.1, 69: 0.1, 70: 0.01, 89: 0.01, 90: 0.005, 100: 0.005,
    },
    ("svhn", "mart"): {1: 0.2, 2: 0.4, 4: 0.8, 5: 1, 39: 1, 40: 0.1, 69: 0.1, 70: 0.01},
    ("svhn", "trades"): {1: 0.2, 3: 0.6, 5: 1, 6: 1, 54: 1, 55: 0.1, 65: 0.1},
}  # fmt: skip
# Sec. 4.1 of the paper; on SVHN "reduced by 20" epochs.
PAPER_RATES = {
    ("cifar10", "at"): {1: 1, 59: 1, 60: 0.1, 89: 0.1, 90: 0.01, 120: 0.01},
    ("cifar10", "trades"): {1: 1, 74: 1, 75: 0.1, 85: 0.1},
    ("cifar10", "mart"): {1: 1, 59: 1, 60: 0.1, 89: 0.1, 90: 0.1},
    ("svhn", "at"): {1: 1, 39: 1, 40: 0.1, 69: 0.1, 70: 0.01, 100: 0.01},
    ("svhn", "trades"): {1: 1, 54: 1, 55: 0.1, 65: 0.1},
    ("svhn", "mart"): {1: 1, 39: 1, 40: 0.1, 70: 0.1},
}
RATES = {"paper": PAPER_RATES, "authors": AUTHORS_RATES}


@pytest.mark.parametrize(
    ("recipe", "data", "method"),
    [(recipe, *case) for recipe, cases in RATES.items() for case in cases],
)
def test_recipe_s_rate_at_every_epoch_where_it_changes(recipe, data, method):
    values = resolve(RunConfig(data=data, method=method, recipe=recipe))
    factors = RATES[recipe][data, method]
    assert values.epochs == max(factors)
    found = {epoch: learning_rate(values, epoch, 7, 391) / 0.1 for epoch in factors}
    assert found == pytest.approx(factors)


@pytest.mark.parametrize("recipe", ["paper", "authors"])
def test_friendly_adversarial_training_decays_three_times(recipe):
    values = resolve(RunConfig(data="cifar10", method="fat", recipe=recipe))
    rates = [learning_rate(values, epoch, 0, 9) for epoch in (59, 60, 90, 110, 120)]
    assert rates == pytest.approx([0.1, 0.01, 0.001, 0.0005, 0.0005])


def test_warm_up_is_linear_in_the_epoch_and_constant_within_it():
    values = replace(resolve(RunConfig(data="cifar10")), warmup_epochs=4)
    rates = [[learning_rate(values, epoch, step, 3) for step in range(3)] for epoch in range(1, 6)]
    assert [row[0] for row in rates] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert all(len(set(row)) == 1 for row in rates)


def test_cyclic_rate_is_a_triangle_over_all_steps():
    rates = [cyclic_rate(step, 9, 0.2) for step in range(9)]
    assert rates == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.16, 0.12, 0.08, 0.04])


@pytest.mark.parametrize("total_steps", [1, 2, 7, 100])
def test_cyclic_rate_is_symmetric_and_never_zero(total_steps):
    rates = [cyclic_rate(step, total_steps, 0.2) for step in range(total_steps)]
    assert rates == pytest.approx(rates[::-1])
    assert 0 < min(rates) <= max(rates) <= 0.2


def test_fast_training_runs_through_the_triangle_once():
    config = resolve(RunConfig(data="cifar10", method="fast_at"))
    num_steps = 10
    rates = [
        learning_rate(config, epoch, step, num_steps)
        for epoch in range(1, 16)
        for step in range(num_steps)
    ]
    assert rates == pytest.approx([cyclic_rate(step, 150, 0.2) for step in range(150)])
    assert max(rates) == pytest.approx(0.2, rel=0.01)
    assert rates.index(max(rates)) in (74, 75)
