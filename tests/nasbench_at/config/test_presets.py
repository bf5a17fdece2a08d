from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from nasbench_at import RunConfig
from nasbench_at.config import resolve
from nasbench_at.config.allowed_values import field_annotations
from nasbench_at.config.run_config import PAPER_VALUES, UnsetT, recipe_of

# Sec. 4.1 of the paper; the start and the betas it does not print are the usual ones.
PAPER = {
    "eps": 0.031,
    "step_size": 0.007,
    "attack_steps": 10,
    "attack_start": "uniform",
    "attack_noise": 0.0,
    "epochs": 120,
    "batch_size": 128,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "milestones": (60, 90),
    "milestone_factors": (0.1, 0.01),
    "attention_lr": 1e-3,
    "attention_weight_decay": 1e-3,
    "attention_betas": (0.9, 0.999),
}
# Where the authors' code (d12306/dsnet) differs for AT on CIFAR-10.
AUTHORS = {
    "attack_noise": 0.001,
    "milestones": (60, 90, 110),
    "milestone_factors": (0.1, 0.01, 0.005),
    "attention_betas": (0.5, 0.999),
}


def preset_of(data, method, recipe):
    return recipe_of({"data": data, "method": method, "recipe": recipe})


@pytest.mark.parametrize(("recipe", "values"), [("paper", PAPER), ("authors", PAPER | AUTHORS)])
def test_adversarial_training_on_cifar10(recipe, values):
    preset = preset_of("cifar10", "at", recipe)
    assert {name: preset[name] for name in values} == values


@pytest.mark.parametrize(("recipe", "values"), [("paper", PAPER), ("authors", PAPER | AUTHORS)])
def test_unset_fields_are_filled_in_from_the_recipe(recipe, values):
    config = resolve(RunConfig(data="cifar10", recipe=recipe))
    assert {name: getattr(config, name) for name in values} == values
    assert config.select_on == {"paper": "validation", "authors": "test"}[recipe]


def test_recipes_fill_in_every_field_that_may_be_unset():
    annotations = field_annotations(RunConfig)
    assert {n for n, kind in annotations.items() if UnsetT in get_args(kind)} == {*PAPER_VALUES}


def test_set_fields_win_over_the_recipe():
    config = resolve(RunConfig(data="cifar10", lr=0.02, batch_size=32, attack_steps=7, eps=0.031))
    assert (config.lr, config.batch_size, config.attack_steps) == (0.02, 32, 7)
    assert config.step_size == 0.007


@pytest.mark.parametrize("recipe", ["paper", "authors"])
def test_digits_are_trained_in_minutes_at_a_larger_radius(recipe):
    config = resolve(RunConfig(recipe=recipe))
    assert (config.eps, config.epochs) == (0.1, 20)
    assert config.step_size == pytest.approx(0.007 / 0.031 * 0.1)
    assert config.milestones[:2] == (11, 16)
    assert len(config.milestones) == len(config.milestone_factors)


@pytest.mark.parametrize("data", ["cifar10", "digits"])
def test_another_eps_scales_the_step(data):
    preset = preset_of(data, "at", "paper")
    config = resolve(RunConfig(data=data, eps=2 * preset["eps"]))
    assert config.step_size == pytest.approx(2 * preset["step_size"])


def test_a_set_step_is_not_scaled():
    assert resolve(RunConfig(eps=0.2, step_size=0.01)).step_size == 0.01


def test_eps_zero_keeps_a_usable_step():
    config = resolve(RunConfig(eps=0.0))
    assert config.eps == 0
    assert config.step_size > 0


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(120, (60, 90)), (60, (30, 46)), (12, (7, 10)), (1, (2, 2))]
)
def test_another_number_of_epochs_scales_the_milestones(epochs, milestones):
    config = resolve(RunConfig(data="cifar10", epochs=epochs))
    assert config.milestones == pytest.approx(milestones, abs=1)
    assert min(config.milestones) >= 2
    assert config.milestone_factors == PAPER["milestone_factors"]


def test_set_milestones_are_kept_and_get_tenths_for_factors():
    config = resolve(RunConfig(data="cifar10", epochs=40, milestones=(10, 20, 30)))
    assert config.milestones == (10, 20, 30)
    assert config.milestone_factors == pytest.approx((0.1, 0.01, 0.001))


def test_no_milestones_leave_the_rate_constant():
    config = resolve(RunConfig(milestones=()))
    assert config.milestones == config.milestone_factors == ()


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(data="cifar10", recipe="authors", epochs=7, eps=0.1),
        RunConfig(attention="fixed", milestones=(3,)),
        RunConfig(eps=0.0),
    ],
)
def test_resolving_twice_changes_nothing(config):
    once = resolve(config)
    assert resolve(once) == once
    unset = [name for name, value in once.to_dict().items() if value is None]
    assert unset == ["attention_weights", "attention_keep", "beta", "tau_milestones"]


def test_seeds_share_a_resolved_configuration():
    assert resolve(RunConfig(seed=3)) == replace(resolve(RunConfig()), seed=3)


def test_a_user_s_own_method_takes_the_values_of_at():
    assert preset_of("cifar10", "mine", "authors") == preset_of("cifar10", "at", "authors")


# --- where the authors' code (d12306/dsnet) differs from the paper in training

DIFFERENCES = [
    # data, method, field, paper, authors
    ("cifar10", "at", "attention_betas", (0.9, 0.999), (0.5, 0.999)),
    ("svhn", "trades", "attention_betas", (0.9, 0.999), (0.5, 0.999)),
    ("cifar10", "at", "milestones", (60, 90), (60, 90, 110)),
    ("cifar10", "at", "milestone_factors", (0.1, 0.01), (0.1, 0.01, 0.005)),
    ("cifar10", "mart", "milestones", (60,), (60, 90)),
    ("cifar10", "mart", "milestone_factors", (0.1,), (0.1, 0.01)),
    ("cifar10", "mart", "attack_start", "normal", "uniform"),
    ("svhn", "mart", "attack_start", "normal", "uniform"),
    ("svhn", "at", "milestones", (40, 70), (40, 70, 90)),
    *[("svhn", method, "warmup_epochs", 0, 5) for method in ("at", "trades", "mart")],
    *[("svhn", method, "step_size", 0.003, 0.0031) for method in ("at", "trades", "mart")],
    *[
        (data, method, "attack_noise", 0.0, 0.001)
        for data in ("cifar10", "svhn")
        for method in ("at", "trades")
    ],
]
SAME = [
    # data, method, field, both
    *[(data, "mart", "attack_noise", 0.0) for data in ("cifar10", "svhn")],
    *[(data, "trades", "attack_start", "normal") for data in ("cifar10", "svhn")],
    *[(data, method, "beta", 6.0) for data in ("cifar10", "svhn") for method in ("trades", "mart")],
    *[("cifar10", "at", name, value) for name, value in (("epochs", 120), ("augment", True))],
    ("cifar10", "trades", "epochs", 85),
    ("cifar10", "mart", "epochs", 90),
    ("svhn", "at", "epochs", 100),
    ("svhn", "trades", "epochs", 65),
    ("svhn", "mart", "epochs", 70),
    ("svhn", "at", "augment", True),
    ("cifar10", "fat", "weight_decay", 2e-4),
    ("cifar10", "fat", "attack_noise", 0.001),
    ("cifar10", "fat", "tau_milestones", (51, 91)),
    ("cifar10", "fat_trades", "tau_milestones", (31, 51, 71)),
    ("cifar10", "fat_trades", "attack_noise", 0.0),
    ("cifar10", "fast_at", "epochs", 15),
    ("cifar10", "fast_at", "lr", 0.2),
    ("cifar10", "fast_at", "lr_schedule", "cyclic"),
    ("cifar10", "fast_at", "attack_steps", 1),
]


@pytest.mark.parametrize(("data", "method", "name", "paper", "authors"), DIFFERENCES)
def test_recipes_differ_where_the_authors_code_does(data, method, name, paper, authors):
    found = [
        getattr(resolve(RunConfig(data=data, method=method, recipe=recipe)), name)
        for recipe in ("paper", "authors")
    ]
    assert found == [paper, authors]


@pytest.mark.parametrize(("data", "method", "name", "value"), SAME)
def test_recipes_agree_elsewhere(data, method, name, value):
    for recipe in ("paper", "authors"):
        assert getattr(resolve(RunConfig(data=data, method=method, recipe=recipe)), name) == value


@pytest.mark.parametrize("method", ["st", "at", "trades", "mart", "fat", "fat_trades", "fast_at"])
@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("data", ["cifar10", "cifar100", "svhn", "fashion_mnist", "digits", "own"])
def test_every_method_has_a_recipe_for_every_data_set(data, recipe, method):
    values = resolve(RunConfig(data=data, method=method, recipe=recipe))
    assert (values.beta is not None) == (method in ("trades", "mart", "fat_trades"))
    assert (values.tau_milestones is not None) == (method in ("fat", "fat_trades"))
    assert len(values.milestones) == len(values.milestone_factors)
    assert all(milestone <= values.epochs + 20 for milestone in values.milestones)


def test_taus_keep_their_share_of_the_epochs():
    config = resolve(RunConfig(data="cifar10", method="fat", epochs=12))
    assert config.tau_milestones == (6, 10)


def test_warm_up_keeps_its_share_of_the_epochs():
    assert resolve(RunConfig(data="svhn", recipe="authors")).warmup_epochs == 5
    assert resolve(RunConfig(data="svhn", recipe="authors", epochs=20)).warmup_epochs == 1
    assert resolve(RunConfig(data="svhn", recipe="authors", epochs=1)).warmup_epochs == 0


# L2


@pytest.mark.parametrize("method", ["st", "at", "trades", "mart", "fat", "fat_trades"])
@pytest.mark.parametrize("recipe", ["paper", "authors"])
@pytest.mark.parametrize("data", ["cifar10", "svhn"])
def test_l2_has_the_radius_and_step_of_rice_et_al(method, recipe, data):
    linf = resolve(RunConfig(data=data, method=method, recipe=recipe))
    config = resolve(RunConfig(data=data, method=method, recipe=recipe, norm="L2"))
    assert config == replace(linf, norm="L2", eps=128 / 255, step_size=15 / 255)


@pytest.mark.parametrize(("data", "eps"), [("digits", 0.5), ("fashion_mnist", 1.0)])
def test_l2_s_step_moves_along_with_the_radius(data, eps):
    config = resolve(RunConfig(data=data, norm="L2"))
    assert (config.eps, config.step_size) == (eps, pytest.approx(eps * 15 / 128))
    config = resolve(RunConfig(data=data, norm="L2", eps=2 * eps))
    assert config.step_size == pytest.approx(2 * eps * 15 / 128)
