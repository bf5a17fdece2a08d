from __future__ import annotations

from typing import Any

import optuna
import pytest

from nasbench_at.data import ImageSpec
from nasbench_at.networks.graph import count_planned_parameters
from studies.recipes import search
from studies.suggestion import suggest_run

IMAGES = ImageSpec((1, 8, 8), 4)
POOL = ("residual", "mbconv", "dense")


def suggest(study, **params: Any):
    trial = optuna.trial.FixedTrial(params)
    return suggest_run(study, trial, IMAGES)  # type: ignore[arg-type]


def choice(*names: str, prefix: str = "") -> dict[str, bool]:
    return {f"{prefix}{name}": name in names for name in POOL}


def test_booleans_choose_one_set_for_the_network(base):
    run = suggest(search(base, pool=POOL), **choice("residual", "dense"))
    assert run.config.blocks == ("residual", "dense")
    assert run.num_params == count_planned_parameters(run.config.architecture((1, 8, 8), 4))
    assert run.excess is None


def test_empty_set_stands_for_the_first_block(base):
    study = search(base, pool=POOL)
    assert suggest(study, **choice()).config == suggest(study, **choice("residual")).config


def test_sets_may_differ_by_stage(base):
    params = {
        **choice("residual", prefix="stage1."),
        **choice("mbconv", prefix="stage2."),
        **choice("dense", "mbconv", prefix="stage3."),
    }
    study = search(base, pool=POOL, per="stage", depths=(3, 5))
    blocks = suggest(study, num_modules=5, **params).config.blocks
    assert blocks == (
        ("residual",),
        ("mbconv",),
        ("mbconv",),
        ("mbconv", "dense"),
        ("mbconv", "dense"),
    )
    architecture = suggest(study, num_modules=5, **params).config.architecture((1, 8, 8), 4)
    assert architecture.reduction_points == (1, 3)


def test_sets_may_differ_by_module(base):
    params = choice("residual", prefix="module01.") | choice("dense", prefix="module02.")
    params |= choice("residual", "dense", prefix="module03.")
    run = suggest(search(base, pool=POOL, per="module"), **params)
    assert run.config.blocks == (("residual",), ("dense",), ("residual", "dense"))


def test_everything_else_can_be_chosen(base):
    study = search(
        base,
        pool=POOL,
        widths=(4, 12),
        widen_factors=(1, 2),
        inits=("uniform", "normal"),
        weight_decays=(1e-4, 1e-2),
    )
    run = suggest(
        study,
        init_channels=6,
        widen_factor=2,
        attention_init="uniform",
        weight_decay=0.005,
        **choice("dense"),
    )
    config = run.config
    assert (config.init_channels, config.widen_factor) == (6, 2)
    assert (config.attention_init, config.weight_decay) == ("uniform", 0.005)


def test_width_is_matched_and_excess_counted(base):
    study = search(base, pool=POOL, match_parameters=20_000)
    sizes = [suggest(study, **choice(name)).num_params for name in POOL]
    assert sizes == [pytest.approx(20_000, rel=0.2)] * 3
    budget = search(base, pool=POOL, max_parameters=5_000)
    run = suggest(budget, **choice("dense"))
    assert run.excess == pytest.approx(run.num_params / 5_000 - 1)


def test_size_of_the_space(base):
    assert search(base, pool=POOL).space.size(3) == 7
    assert search(base, pool=POOL, per="stage").space.size(6) == 7**3
    assert search(base, pool=POOL, per="module").space.size(4) == 7**4
    varied = search(base, pool=POOL, depths=(3, 5), widths=(4, 7), widen_factors=(1, 2))
    assert varied.space.size(3) == 7 * 3 * 4 * 2
    assert search(base, pool=POOL, weight_decays=(1e-4, 1e-3)).space.size(3) is None
