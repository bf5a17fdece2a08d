from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from blocks import register_block
from nasbench_at import RunConfig, train
from nasbench_at.config import resolve
from nasbench_at.config.presets import DATA_NETWORKS
from nasbench_at.evaluation.runs import Run
from nasbench_at.networks.graph import build_network, count_planned_parameters
from studies import StudyConfig, recipes
from studies.parents import keep_top, learned_weights
from studies.recipes import RECIPES, find_recipe
from studies.recipes.methods import parse_method
from studies.variants import fit_width, image_spec, num_params
from tests.studies.conftest import tiny_run

FOUR = ("residual", "mbconv", "dense", "ada_rk")


@pytest.fixture
def four(stripes) -> RunConfig:
    return tiny_run(stripes, blocks=FOUR, init_channels=8)


@pytest.fixture(scope="module")
def parent(stripes, tmp_path_factory) -> Path:
    config = resolve(tiny_run(stripes, blocks=FOUR, epochs=1))
    runs = tmp_path_factory.mktemp("runs")
    train(config, runs_dir=runs, device="cpu")
    return runs / config.run_id


def test_block_space_trains_all_subsets_at_the_full_sets_parameters(four):
    study = recipes.block_space(four)
    assert len(study.runs) == 15
    subsets = {planned.config.blocks for planned in study.runs}
    assert len(subsets) == 15
    images = image_spec(four)
    target = num_params(four, images)
    for planned in study.runs:
        assert {name for name in FOUR if planned.labels[name]} == set(planned.config.blocks)
        width = planned.config.init_channels
        missed = abs(num_params(planned.config, images) - target)
        for other in (width - 1, width + 1):
            neighbour = num_params(
                tiny_run(planned.config.data, blocks=planned.config.blocks, init_channels=other),
                images,
            )
            assert missed <= abs(neighbour - target)
    assert study.runs[-1].config == resolve(four)


def test_block_space_of_some_sizes_seeds_and_a_budget(four):
    study = recipes.block_space(four, sizes=(2,), seeds=(3, 4), max_parameters=20_000)
    assert len(study.runs) == 12
    assert {planned.labels["seed"] for planned in study.runs} == {3, 4}
    images = image_spec(four)
    sizes = [num_params(planned.config, images) for planned in study.runs]
    assert max(sizes) <= 20_000
    wider = [
        tiny_run(
            four.data, blocks=planned.config.blocks, init_channels=planned.config.init_channels + 1
        )
        for planned in study.runs
    ]
    assert min(num_params(config, images) for config in wider) > 20_000


def test_block_options_follow_their_blocks(stripes):
    base = tiny_run(stripes, blocks=FOUR, block_options={"ada_rk": {"separate_norms": True}})
    for planned in recipes.block_space(base).runs:
        assert bool(planned.config.block_options) == ("ada_rk" in planned.config.blocks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (5,)}, r"sizes must lie in 1\.\.4, got 5"),
        ({"max_parameters": 100}, "no width meets 100 parameters"),
        ({"max_parameters": 9, "match_parameters": 9}, "both choose the width"),
    ],
)
def test_bad_block_spaces_are_named(changes, message, four):
    with pytest.raises(ValueError, match=message):
        recipes.block_space(four, **changes)


def test_no_width_within_a_budget_is_named(four):
    images = image_spec(four)
    smallest = num_params(tiny_run(four.data, blocks=("residual",), init_channels=1), images)
    with pytest.raises(ValueError, match="blocks residual meets a budget of"):
        fit_width(tiny_run(four.data, blocks=("residual",)), images, smallest - 1)


def test_width_within_a_budget_is_one_that_can_be_built(four, own_registry):
    register_block("in_8_groups", summary="grouped", reference="ours", kind="handcrafted")(
        lambda channels: torch.nn.Conv2d(channels, channels, 3, padding=1, groups=8)
    )
    config, images = tiny_run(four.data, blocks=("in_8_groups",)), image_spec(four)
    wider = num_params(replace(config, init_channels=24), images)
    assert fit_width(config, images, wider).init_channels == 24
    assert fit_width(config, images, wider - 1).init_channels == 16


def test_block_ensemble_has_learned_uniform_and_same_blocks(four):
    study = recipes.block_ensemble(four, seeds=(0,), methods=("at", "trades:1"))
    by_variant = {
        planned.labels["variant"]: planned.config
        for planned in study.runs
        if planned.labels["method"] == "at"
    }
    assert list(by_variant) == ["learned", "uniform", *(f"{name} x4" for name in FOUR)]
    assert by_variant["learned"].attention == "learned"
    assert (by_variant["uniform"].attention, by_variant["uniform"].attention_init) == (
        "fixed",
        "equal",
    )
    assert by_variant["dense x4"].blocks == ("dense",) * 4
    assert by_variant["dense x4"].init_channels < 8 < by_variant["mbconv x4"].init_channels
    betas = {planned.config.beta for planned in study.runs if planned.config.method == "trades"}
    assert betas == {1.0}
    assert len(study.runs) == 12


def test_initialization_varies_where_logits_begin(four, parent):
    study = recipes.initialization(four, seeds=(0,))
    inits = [planned.config.attention_init for planned in study.runs]
    assert inits == ["normal", "uniform", "log_normal", "exponential", "geometric"]
    study = recipes.initialization(four, seeds=(0,), parent=parent)
    optimised = study.runs[-1]
    assert optimised.labels["init"] == "optimised"
    assert optimised.config.attention == "learned"
    assert optimised.config.attention_weights == learned_weights(parent, four)


def test_initialization_of_the_papers_network_takes_the_authors_weights():
    study = recipes.initialization(RunConfig(data="cifar10"), seeds=(0,))
    assert study.runs[-1].config.attention_init == "trained"


def test_initialization_needs_learned_weights(stripes):
    base = tiny_run(stripes, attention="fixed")
    with pytest.raises(ValueError, match="needs a ds_net with learned weights, got 'ds_net' with"):
        recipes.initialization(base)


def test_weight_decay(base):
    study = recipes.weight_decay(base, seeds=(0, 1))
    decays = {planned.config.weight_decay for planned in study.runs}
    assert decays == {3e-4, 4e-4, 5e-4, 6e-4, 7e-4}
    assert len(study.runs) == 10


def test_pruning_keeps_the_highest_weights_in_both_forms(four, parent):
    study = recipes.pruning(four, parents=(parent,))
    assert [(c.labels["kept"], c.labels["form"]) for c in study.runs] == [
        *((k, f) for k in (1, 2, 3) for f in ("instantiated", "zeroed")),
        (4, "instantiated"),
    ]
    network = Run.open(parent, device="cpu").network
    weights = network.attention.weights()
    top = weights.argmax(dim=1).tolist()
    built, zeroed = study.runs[0].config, study.runs[1].config
    assert built.blocks == tuple((FOUR[column],) for column in top)
    assert zeroed.blocks == FOUR
    assert zeroed.attention_keep == tuple((column,) for column in top)
    assert all(planned.config.attention == "fixed" for planned in study.runs)
    images = image_spec(four)
    assert num_params(built, images) == pytest.approx(num_params(four, images), rel=0.15)
    full = study.runs[-1].config
    torch.testing.assert_close(torch.tensor(full.attention_weights), weights.detach())


def test_pruning_of_block_sets_that_differ_by_module(stripes, tmp_path):
    sets = (("residual", "mbconv"), ("dense",), ("residual", "dense", "ada_rk"))
    base = tiny_run(stripes, blocks=sets, init_channels=8, epochs=1)
    parent = train(base, runs_dir=tmp_path, device="cpu")
    study = recipes.pruning(base, parents=(tmp_path / parent.run_id,), kept=(1, 2, 3))
    assert [(c.labels["kept"], c.labels["form"]) for c in study.runs] == [
        *((k, f) for k in (1, 2) for f in ("instantiated", "zeroed")),
        (3, "instantiated"),
    ]
    images = image_spec(base)
    for planned in study.runs:
        count, config = planned.labels["kept"], planned.config
        network = build_network(config.architecture(images.image_shape, images.num_classes))
        weights = network.attention.weights()
        for row, blocks in zip(weights.tolist(), sets, strict=True):
            kept = [weight for weight in row if weight > 0]
            assert len(kept) == min(count, len(blocks))
            assert sum(kept) == pytest.approx(1.0)
        x = torch.rand(2, *images.image_shape)
        assert network(x).shape == (2, images.num_classes)
    zeroed = study.runs[3].config
    assert zeroed.blocks == sets
    assert [len(row) for row in zeroed.attention_weights] == [2, 1, 3]
    full = study.runs[-1].config
    assert full.attention_weights == learned_weights(tmp_path / parent.run_id, base)


def test_zeroed_and_instantiated_two_block_networks_weigh_alike(four, parent):
    study = recipes.pruning(four, parents=(parent,), kept=(2,))
    built, zeroed = (planned.config for planned in study.runs)
    for packed, row in zip(built.attention_weights, zeroed.attention_weights, strict=True):
        assert sum(packed) == pytest.approx(1.0)
        assert [weight for weight in row if weight] == list(packed)


def test_keep_top_renormalises():
    kept, rows = keep_top(((0.1, 0.4, 0.3, 0.2), (0.5, 0.5, 0.0, 0.0)), 3)
    assert kept == ((1, 2, 3), (0, 1))
    assert rows[0] == pytest.approx((0, 4 / 9, 3 / 9, 2 / 9))
    assert rows[1] == (0.5, 0.5, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": ()}, "needs at least one parent"),
        ({"kept": (5,)}, r"kept must lie in 1\.\.4, got 5"),
        ({"forms": ("cut",)}, "forms must be some of instantiated, zeroed, got 'cut'"),
    ],
)
def test_bad_prunings_are_named(changes, message, four, parent):
    arguments: dict[str, Any] = {"parents": (parent,), **changes}
    with pytest.raises(ValueError, match=message):
        recipes.pruning(four, **arguments)


def test_parent_without_learned_weights_is_named(stripes, four, parent, tmp_path):
    fixed = resolve(tiny_run(stripes, attention="fixed", epochs=1))
    train(fixed, runs_dir=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="has no learned weights: its model is 'ds_net', its"):
        recipes.pruning(four, parents=(tmp_path / fixed.run_id,))
    with pytest.raises(
        ValueError, match=r"weighs 3 modules of .*'ada_rk'.*, the study's network 3"
    ):
        recipes.pruning(tiny_run(stripes), parents=(parent,))
    with pytest.raises(ValueError, match="is no run folder"):
        recipes.pruning(four, parents=(tmp_path / "none",))


def test_methods_by_models_by_seeds(base):
    study = recipes.methods(
        base, models=("ds_net", "tiny_resnet"), methods=("at", "trades:6"), seeds=(0, 1)
    )
    assert [tuple(planned.labels.values()) for planned in study.runs[:4]] == [
        ("ds_net", "at", 0),
        ("ds_net", "at", 1),
        ("tiny_resnet", "at", 0),
        ("tiny_resnet", "at", 1),
    ]
    assert {planned.config.beta for planned in study.runs if planned.config.method == "trades"} == {
        6.0
    }
    assert study.runs[2].config.model == "tiny_resnet"


@pytest.mark.parametrize(
    ("way", "message"),
    [("bt", "method must be one of st, at, .*, got 'bt'"), ("trades:x", "must be a number")],
)
def test_bad_ways_are_named(way, message):
    with pytest.raises(ValueError, match=message):
        parse_method(way)


def test_misalignment_trains_each_model_twice(base):
    study = recipes.misalignment(base, models=("tiny_resnet", "tiny_mobilenet_v2"))
    assert [tuple(planned.labels.values())[:2] for planned in study.runs] == [
        ("tiny_resnet", "st"),
        ("tiny_resnet", "at"),
        ("tiny_mobilenet_v2", "st"),
        ("tiny_mobilenet_v2", "at"),
    ]


def test_misalignment_takes_options_of_the_adversarial_method(stripes):
    base = tiny_run(stripes, method="fat_trades", beta=2.0, tau_milestones=(2,))
    runs = [planned.config for planned in recipes.misalignment(base, models=("tiny_resnet",)).runs]
    assert [(run.method, run.beta, run.tau_milestones) for run in runs] == [
        ("st", None, None),
        ("fat_trades", 2.0, (2,)),
    ]
    with pytest.raises(ValueError, match="method must be another than st"):
        recipes.misalignment(tiny_run(stripes, method="st"))


def test_reliability_trains_the_same_networks_in_each_way(four):
    study = recipes.reliability(
        four, seeds=(0, 1), num_epochs=(2, 3), radii=(0.1, 0.2), selections=("validation", "last")
    )
    assert len(study.runs) == 5 * 2 * 8
    ways: dict[Any, set[Any]] = {}
    for planned in study.runs:
        config = planned.config
        way = config.epochs, config.eps, config.select_on
        assert way == tuple(planned.labels[name] for name in ("epochs", "eps", "select_on"))
        assert planned.labels["ema_decay"] == config.ema_decay == 0
        ways.setdefault(way, set()).add((config.blocks, config.init_channels, config.seed))
    assert len(ways) == 8
    (networks,) = set(map(frozenset, ways.values()))
    assert {blocks for blocks, _, _ in networks} == {*((name,) for name in FOUR), FOUR}


def test_reliability_of_some_sizes_and_the_bases_own_way(four):
    study = recipes.reliability(four, seeds=(5,), sizes=(2,), ema_decays=(0.0, 0.9))
    assert len(study.runs) == 12
    assert {planned.config.epochs for planned in study.runs} == {four.epochs}
    assert {planned.config.ema_decay for planned in study.runs} == {0.0, 0.9}
    unset = recipes.reliability(replace(four, epochs=None), seeds=(5,), sizes=(4,))
    assert [planned.config.epochs for planned in unset.runs] == [5, 10, 20]
    with pytest.raises(ValueError, match=r"sizes must lie in 1\.\.4, got 5"):
        recipes.reliability(four, sizes=(5,))


DIGITS = RunConfig(data="digits", **DATA_NETWORKS["digits"])


def test_table_of_digits_has_all_subsets_at_equal_parameters():
    study = recipes.nasbench_at_digits(DIGITS, seeds=(3, 4))
    assert len(study.runs) == 2 * (63 + 8 + 5 + 4 + 4 + 15 + 63 + 63)
    sets = [planned for planned in study.runs if planned.labels["variant"] == "learned"]
    first = [planned.config.architecture((1, 8, 8), 10) for planned in sets[:63]]
    assert len({network.block_set for network in first}) == 63
    target = count_planned_parameters(first[-1])
    for planned in study.runs:
        number = count_planned_parameters(planned.config.architecture((1, 8, 8), 10))
        assert abs(number / target - 1) <= 0.02
    assert [planned.labels["seed"] for planned in study.runs[:126]] == [3] * 63 + [4] * 63
    assert {(p.labels["seed"], p.attacks) for p in study.runs[:126]} == {(3, ()), (4, ("aa",))}
    assert StudyConfig.from_dict(yaml.safe_load(study.to_yaml())) == study


def test_parts_of_the_table_of_digits():
    def part(name):
        return [
            planned.config for planned in recipes.nasbench_at_digits(DIGITS, parts=(name,)).runs
        ]

    shared = part("shared_norms")
    assert len(shared) == 8 * 10
    assert all("ada_rk" in config.blocks and not config.block_options for config in shared)
    fixed = part("fixed")
    assert len(fixed) == 5 * 10
    assert {config.attention for config in fixed} == {"fixed"}
    assert {len(config.blocks) for config in fixed} == {4}
    inits = Counter(config.attention_init for config in part("initialization"))
    assert inits == dict.fromkeys(("uniform", "log_normal", "exponential", "geometric"), 10)
    decays = Counter(config.weight_decay for config in part("weight_decay"))
    assert decays == dict.fromkeys((3e-4, 4e-4, 6e-4, 7e-4), 10)
    methods = part("methods")
    counts = Counter((c.method, c.beta) for c in methods)
    assert counts == {("trades", 6.0): 15 * 10, ("fast_at", None): 63 * 10, ("st", None): 63 * 10}


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        (replace(DIGITS, batch_size=32), {}, "takes no flags of a run; for another table"),
        (replace(DIGITS, lr=0.5), {}, "takes no flags of a run; for another table"),
        (DIGITS, {"parts": ("block",)}, "parts must be some of blocks, shared_norms, .*, got 'blo"),
    ],
)
def test_bad_tables_of_digits_are_named(base, options, message):
    with pytest.raises(ValueError, match=message):
        recipes.nasbench_at_digits(base, **options)


def test_search_is_never_judged_on_test_images(base):
    with pytest.raises(ValueError, match=r"never on test images: select_on must be .*, got 'test'"):
        recipes.search(replace(base, select_on="test"))


def test_search_takes_the_whole_registry_by_default(base):
    study = recipes.search(base)
    assert {"residual", "convnext", "ssp2"} <= set(study.space.blocks)
    assert (study.pruner, study.pruner_options["max_resource"]) == ("hyperband", 2)
    assert recipes.search(base, objectives=("robust", "parameters")).pruner == "none"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": ("resident",)}, "pool must name blocks: .*; got 'resident'"),
        ({"max_parameters": 10}, "no block of the space fits: .*10 parameters"),
        ({"widths": (4, 8), "match_parameters": 5000}, "both choose the width"),
        ({"depths": (2, 3)}, "num_modules of a space must be two numbers in order, at least 3"),
        ({"weight_decays": (0.0, 1.0)}, "weight_decay is sampled by its logarithm"),
        ({"screening_epochs": 1, "screening_keep": 1.0}, r"must keep a part in \(0, 1\), got 1.0"),
    ],
)
def test_bad_searches_are_named(changes, message, base):
    with pytest.raises(ValueError, match=message):
        recipes.search(base, **changes)


def test_recipes_are_found_by_their_names():
    assert find_recipe("block_space") is recipes.block_space
    assert set(RECIPES) == {name.replace("_", "-") for name in recipes.__all__} - {
        "RECIPES",
        "find-recipe",
    }
    with pytest.raises(ValueError, match="unknown recipe 'prunning'; did you mean 'pruning'"):
        find_recipe("prunning")
