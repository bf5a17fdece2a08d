from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from nasbench_at import RunConfig
from nasbench_at.config import (
    DS_NET_FIELDS,
    ResolvedConfig,
    config_from_mapping,
    dump_config,
    load_config,
    resolve,
)
from nasbench_at.config.architecture import NAMED_DS_NETS
from tests.nasbench_at.conftest import one_line

ROOT = Path(__file__).resolve().parents[3]

FULL = RunConfig(
    data="cifar10",
    validation_fraction=0.2,
    split_seed=3,
    extra_data="generated.npz",
    extra_fraction=0.5,
    blocks=(("residual",), ("residual", "ada_rk"), ("mbconv", "dense")),
    num_modules=3,
    init_channels=8,
    widen_factor=2,
    block_options={"ada_rk": {"separate_norms": True}},
    block_copies={"residual": 2},
    attention="fixed",
    attention_init="given",
    attention_weights=((1.0,), (0.25, 0.75), (0.5, 0.5)),
    attention_keep=((0,), (0, 1), (1,)),
    plugins=("my_blocks.py",),
    recipe="authors",
    norm="L2",
    eps=1.5,
    step_size=0.01,
    attack_steps=3,
    attack_start="normal",
    attack_noise=0.001,
    epochs=4,
    batch_size=32,
    lr=5e-4,
    momentum=0.5,
    weight_decay=0.0,
    milestones=(2, 3),
    milestone_factors=(0.5, 0.25),
    attention_lr=1e-3,
    attention_weight_decay=1e-3,
    attention_betas=(0.5, 0.999),
    channels_last=False,
    seed=7,
)


NAN, INF = float("nan"), float("inf")
RADIUS = "a number in [0, 1] (pixel scale; divide by 255)"
# What each kind of field may hold, and values that it may not.
NOT_ALLOWED = {
    "validation_fraction": ("a number in (0, 1)", [0, 1.0, NAN, None]),
    "eps": (RADIUS, [-0.1, 8.0, NAN, 10**400, "0.1", True]),
    "step_size": ("a number above 0", [0.0, INF]),
    "attack_steps": ("a whole number from 1 to 10000", [0, 10**20, 2.5]),
    "attack_start": ("one of uniform, normal, none", ["gauss"]),
    "attack_noise": ("a number of at least 0", [-1e-3]),
    "beta": ("a number of at least 0", [INF]),
    "awp_gamma": ("a number of at least 0", [INF]),
    "ema_decay": ("a number in [0, 1)", [1]),
    "epochs": ("a whole number from 1 to 100000", [0, 1.5, True, "3"]),
    "batch_size": ("a whole number from 2 to 1000000 (BatchNorm needs two images)", [1]),
    "lr": ("a number above 0", [0.0, INF]),
    "lr_schedule": ("one of milestones, cyclic", ["cosine"]),
    "momentum": ("a number in [0, 1)", [1.0, -0.1]),
    "weight_decay": ("a number of at least 0", [-5e-4, INF]),
    "milestones": (
        "a list of whole numbers from 1 to 100000, in order",
        [(9, 3), (0, 3), 5, (1.5,)],
    ),
    "milestone_factors": ("a list of numbers above 0", [(0.0,)]),
    "tau_milestones": ("a list of whole numbers from 1 to 100000, in order", [(5, 2)]),
    "attention_lr": ("a number above 0", [0.0]),
    "attention_weight_decay": ("a number of at least 0", [-1.0]),
    "attention_betas": ("2 numbers in [0, 1)", [(0.9, 1.0), (0.9,)]),
    "attention_init_options": ("a mapping of names to numbers", [{"scale": INF}, 5]),
    "attention": ("one of learned, fixed", ["soft"]),
    "recipe": ("one of paper, authors", ["ours", None]),
    "select_on": ("one of validation, test, last", ["tset"]),
    "precision": ("one of fp32, bf16, fp16, fp16_unscaled", ["fp12", "off", False]),
    "optimizer_impl": ("one of torch, fused, apex", ["fusd"]),
    "num_modules": ("a whole number from 3 to 1000", [2, 10**9]),
    "init_channels": ("a whole number from 1 to 100000", [0, 2.5]),
    "widen_factor": ("a number in [1, 100]", [0]),
    "blocks": ("a list of names or a list of lists of names", [[""], "residual", 5, [["a"], "b"]]),
    "block_options": ("a mapping of names to mappings of names to plain data", [5, {"a": 1}]),
    "block_copies": ("a mapping of names to whole numbers from 1 to 100", [{"dense": 0}]),
    "model_options": ("a mapping of names to plain data", [{"a": NAN}, {"a": object}, {1: 2}]),
    "plugins": ("a list of names", [("",)]),
    "data": ("a name", [5, ""]),
    "extra_data": ("a file ending in .npz", [5, "", "x.npy", ".npz"]),
    "extra_fraction": ("a number in (0, 1)", [0, 1, -0.5, NAN, "a", True]),
    "method": ("a name", [None]),
    "compile": ("true or false", ["yes", 1]),
    "augment": ("true or false", ["no"]),
    "seed": ("a whole number from 0 to 4294967295", ["a", 1.5, None, -1, True]),
}


@pytest.mark.parametrize(
    ("name", "allowed", "value"),
    [(name, allowed, value) for name, (allowed, bad) in NOT_ALLOWED.items() for value in bad],
    ids=str,
)
def test_value_that_is_not_allowed_is_named_with_what_is(name, allowed, value):
    with pytest.raises(ValueError, match=re.escape(f"{name} must be {allowed}, got ")) as error:
        RunConfig(**{name: value})
    assert repr(value)[:50] in one_line(error)


def test_every_field_refuses_nonsense():
    for item in fields(RunConfig):
        with pytest.raises(ValueError, match=f"^{item.name} must be .*, got <object"):
            RunConfig(**{item.name: object()})


def test_a_name_that_is_nearly_right_is_suggested():
    with pytest.raises(ValueError, match=r"got 'tset'; did you mean 'test'\?$"):
        RunConfig(select_on="tset")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eps", 0),
        ("eps", 1),
        ("momentum", 0.0),
        ("weight_decay", 0.0),
        ("attack_noise", 0.0),
        ("milestones", ()),
        ("milestones", (4, 4)),
        ("batch_size", 2),
        ("num_modules", 3),
        ("attack_steps", 10_000),
        ("seed", 2**32 - 1),
        ("warmup_epochs", 0),
    ],
)
def test_ends_of_the_ranges_are_allowed(name, value):
    assert getattr(RunConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": ()}, "blocks must name at least one block, got an empty set"),
        ({"blocks": (("residual",), (), ("dense",)), "num_modules": 3}, "module 1 has an empty"),
        ({"blocks": (("residual",),) * 2}, "blocks must be a set for each of 15 modules, got 2"),
        ({"attention_init": "given"}, "weights go with init 'given', and only with it"),
        (
            {"attention_init_options": {"scale": -1}},
            "scale of attention init 'normal' must be a number of at least 0, got -1.0",
        ),
    ],
)
def test_impossible_network_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        RunConfig(**changes)
    one_line(error)


@pytest.mark.parametrize("factors", [(0.1,), (0.1, 0.01, 0.001)])
def test_milestones_and_their_factors_must_be_equally_many(factors):
    with pytest.raises(ValueError, match=r"milestones \(3, 9\) and milestone_factors .* equally"):
        RunConfig(milestones=(3, 9), milestone_factors=factors)


def test_the_warm_up_is_no_longer_than_the_training():
    message = "warmup_epochs must be at most the number of epochs, 1, got 50"
    with pytest.raises(ValueError, match=message):
        RunConfig(warmup_epochs=50, epochs=1)


def test_no_factors_for_a_milestone_are_refused():
    with pytest.raises(ValueError, match="must be equally many"):
        RunConfig(milestones=(3,), milestone_factors=())


@pytest.mark.parametrize("config", [RunConfig(), FULL, resolve(RunConfig())])
def test_yaml_round_trip_is_exact(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    again = type(config)(**vars(load_config(path)))
    assert again == config
    assert again.run_id == config.run_id


def test_yaml_is_safe_and_names_every_field():
    plain = yaml.safe_load(dump_config(FULL))
    assert list(plain) == [f.name for f in fields(RunConfig)]


def test_plain_data_are_what_json_and_yaml_hold():
    assert json.loads(json.dumps(FULL.to_dict())) == FULL.to_dict()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("lr: 5e-4", "lr", 5e-4),  # YAML 1.1 reads a string: the number has no dot
        ("epochs: 3.0", "epochs", 3),
        ("eps: 0", "eps", 0.0),
        ("blocks: [residual, dense]", "blocks", ("residual", "dense")),
        ("milestones: [3, 9]", "milestones", (3, 9)),
        ("attention_betas: [0.5, 0.999]", "attention_betas", (0.5, 0.999)),
        (
            "{num_modules: 3, blocks: [[residual], [dense], [residual, dense]]}",
            "blocks",
            (("residual",), ("dense",), ("residual", "dense")),
        ),
    ],
)
def test_numbers_and_lists_are_read_as_the_field_s_type(text, name, value, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert getattr(load_config(path), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon: 0.1", "unknown configuration key 'epsilon'; did you mean 'precision' or 'eps'?"),
        ("zzz: 1", "unknown configuration key 'zzz'; known: data, "),
        ("eps: abc", f"eps must be {RADIUS}, got 'abc'"),
        ("eps: 8", f"eps must be {RADIUS}, got 8"),
        ("epochs: '3'", "epochs must be a whole number from 1 to 100000, got '3'"),
        ("compile: yes", "compile must be true or false, got 'yes'"),
        (
            "blocks: residual",
            "blocks must be a list of names or a list of lists of names, got",
        ),
        ("recipe: our", "recipe must be one of paper, authors, got 'our'"),
        ("lr: 1\nlr: 2", "key 'lr' is there twice"),
        ("- 1", "must be a mapping, got [1]"),
        ("", "must be a mapping, got None"),
        ("eps: [", "cannot read configuration"),
        ("a: !!python/object/apply:os.getcwd []", "cannot read configuration"),
    ],
)
def test_bad_file_gives_one_line_that_names_it(text, message, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_config(path)
    assert str(path) in one_line(error)


def test_missing_and_binary_files_give_one_line(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.yaml", "binary.yaml", "."):
        with pytest.raises(ValueError, match="cannot read configuration") as error:
            load_config(tmp_path / name)
        one_line(error)


GIVEN = {
    "blocks": ("residual", "dense"),
    "num_modules": 3,
    "attention": "fixed",
    "attention_init": "given",
    "attention_weights": ((0.5, 0.5),) * 3,
}


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ({}, {"data": "digits"}),
        ({}, {"validation_fraction": 0.2}),
        ({}, {"split_seed": 1}),
        ({}, {"extra_data": "generated.npz", "extra_fraction": 0.7}),
        ({"extra_data": "generated.npz", "extra_fraction": 0.7}, {"extra_fraction": 0.8}),
        ({}, {"blocks": ("residual", "dense", "ada_rk")}),
        ({}, {"num_modules": 9}),
        ({}, {"init_channels": 8}),
        ({}, {"widen_factor": 6}),
        ({}, {"block_options": {"ada_rk": {"separate_norms": True}}}),
        ({}, {"block_copies": {"residual": 2}}),
        ({}, {"attention": "fixed"}),
        ({}, {"attention_init": "uniform"}),
        ({}, {"attention_init_options": {"scale": 0.5}}),
        (GIVEN, {"attention_weights": ((0.25, 0.75),) * 3}),
        ({}, {"attention_keep": ((0, 1),) * 15}),
        ({}, {"plugins": ("my_blocks.py",)}),
        ({}, {"method": "trades"}),
        ({}, {"recipe": "authors"}),
        ({}, {"eps": 0.05}),
        ({}, {"step_size": 0.02}),
        ({}, {"attack_steps": 4}),
        ({}, {"attack_start": "normal"}),
        ({}, {"attack_noise": 0.002}),
        ({}, {"epochs": 5}),
        ({}, {"batch_size": 64}),
        ({}, {"lr": 0.05}),
        ({}, {"momentum": 0.8}),
        ({}, {"weight_decay": 1e-4}),
        ({}, {"milestones": (2, 4)}),
        ({}, {"milestone_factors": (0.5, 0.2)}),
        ({}, {"attention_lr": 2e-3}),
        ({}, {"attention_weight_decay": 0.0}),
        ({}, {"attention_betas": (0.4, 0.999)}),
        ({}, {"channels_last": False}),
    ],
    ids=lambda value: "-".join(value) or "default",
)
def test_run_id_tells_every_field_but_the_seed_apart(base, changes):
    config = replace(resolve(RunConfig(data="cifar10")), **base)
    assert replace(config, **changes).run_id != config.run_id


def test_run_id_ignores_the_seed_but_ends_with_it():
    one, two = FULL.run_id, replace(FULL, seed=11).run_id
    assert one.removesuffix("-s7") == two.removesuffix("-s11")
    assert one.startswith("cifar10-at-")


def test_blocks_in_another_order_are_the_same_run():
    rows = {"num_modules": 3, "attention": "fixed", "attention_init": "given"}
    one = RunConfig(
        blocks=("residual", "mbconv", "dense"),
        attention_weights=((0.5, 0.2, 0.3),) * 3,
        attention_keep=((0, 2),) * 3,
        **rows,
    )
    two = RunConfig(
        blocks=(("dense", "residual", "mbconv"),) * 3,
        attention_weights=((0.3, 0.5, 0.2),) * 3,
        attention_keep=((0, 1),) * 3,
        **rows,
    )
    assert two == one
    assert two.run_id == one.run_id
    assert two.to_dict()["blocks"] == ["residual", "mbconv", "dense"]


def test_run_id_does_not_depend_on_the_order_of_options():
    one = RunConfig(block_copies={"residual": 2, "dense": 3})
    two = RunConfig(block_copies={"dense": 3, "residual": 2})
    assert one.run_id == two.run_id


def test_architecture_takes_the_images_shape_and_the_configuration():
    architecture = FULL.architecture((1, 8, 8), 5)
    assert architecture.input_shape == (1, 8, 8)
    assert architecture.num_classes == 5
    assert architecture.blocks == FULL.blocks
    assert architecture.stage_channels == (8, 16, 32)
    assert architecture.attention.mode == "fixed"
    assert architecture.attention.keep == FULL.attention_keep
    assert architecture.attention.recipe == "authors"


@pytest.mark.parametrize(("attention", "init"), [("learned", "normal"), ("fixed", "equal")])
def test_initial_attention_follows_from_its_mode(attention, init):
    config = RunConfig(attention=attention)
    assert config.architecture((1, 8, 8), 10).attention.init == init


def test_an_unfinished_configuration_is_not_resolved_and_what_is_unset_is_named():
    with pytest.raises(ValueError, match=r"^eps, lr must be set; .*resolve"):
        replace(resolve(RunConfig()), eps=None, lr=None)


def test_a_resolved_configuration_keeps_what_is_set():
    config = resolve(FULL)
    for name, value in vars(FULL).items():
        assert value in (None, {}, getattr(config, name)), name


def test_mapping_is_not_changed():
    data = {"eps": 0.1, "blocks": ["residual"]}
    config_from_mapping(data)
    assert data == {"eps": 0.1, "blocks": ["residual"]}


def test_configuration_is_built_read_and_written_without_torch():
    code = (
        "import sys, nasbench_at; from nasbench_at.config import config_from_mapping, dump_config;"
        "config = nasbench_at.RunConfig(eps=0.1); config.run_id; config.architecture((1, 8, 8), 2);"
        "config_from_mapping(config.to_dict()); dump_config(config);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr or "building a configuration loads torch"


@pytest.mark.parametrize(
    "changes",
    [
        {"eps": 1},
        {"lr": 1},
        {"attention_init_options": {"scale": 1}},
        {"num_modules": 3, "blocks": ("residual",), "attention": "fixed"}
        | {"attention_init": "given", "attention_weights": ((1,),) * 3},
    ],
    ids=str,
)
def test_a_whole_number_is_the_same_configuration_as_its_float(changes, tmp_path):
    config = resolve(RunConfig(**changes))
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path).run_id == config.run_id


@pytest.mark.parametrize("changes", [{"blocks": ["residual"]}, {"milestones": [3, 4]}], ids=str)
def test_a_list_is_the_same_configuration_as_its_tuple(changes):
    assert RunConfig(**changes) == RunConfig(
        **{name: tuple(value) for name, value in changes.items()}
    )


# --- networks by name


def test_another_network_s_configuration_describes_no_ds_net(tmp_path):
    config = RunConfig(model="tiny_wrn")
    assert not DS_NET_FIELDS & set(config.to_dict())
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_fields_of_a_ds_net_do_not_go_with_another_network():
    with pytest.raises(ValueError, match="blocks goes with model ds_net, got it with 'tiny_wrn'"):
        RunConfig(model="tiny_wrn", blocks=("residual",))


@pytest.mark.parametrize("name", NAMED_DS_NETS)
def test_a_ds_net_by_name_is_the_same_run_as_its_fields(name):
    named = RunConfig(model=name, recipe="authors")
    expected = NAMED_DS_NETS[name]
    spelled_out = RunConfig(
        blocks=expected.blocks,
        num_modules=expected.num_modules,
        init_channels=expected.init_channels,
        widen_factor=expected.widen_factor,
        attention=expected.attention.mode,
        recipe="authors",
    )
    assert named.run_id == spelled_out.run_id
    assert resolve(named) == resolve(spelled_out)
    assert resolve(named).model == "ds_net"
    assert named.network_id((3, 32, 32), 10) == spelled_out.network_id((3, 32, 32), 10)
    architecture = named.architecture(expected.input_shape, expected.num_classes)
    attention = replace(expected.attention, recipe="authors")
    assert architecture == replace(expected, attention=attention)


def test_the_recipe_reaches_the_initial_weights_of_a_ds_net_by_name():
    config = resolve(RunConfig(model="ds_net_4", recipe="authors"))
    attention = config.architecture((3, 32, 32), 10).attention
    assert attention.resolved_parameters()["scale"] == 1e-3


def test_options_of_a_ds_net_by_name_are_its_fields():
    options = {"init_channels": 8, "attention_init": "uniform"}
    named = RunConfig(model="ds_net_6", model_options=options)
    spelled_out = RunConfig(widen_factor=6, init_channels=8, attention_init="uniform")
    assert resolve(named) == resolve(spelled_out)
    with pytest.raises(ValueError, match="model 'ds_net_6' has no option 'recipe'; known: init_ch"):
        RunConfig(model="ds_net_6", model_options={"recipe": "paper"})


# Extra data


def test_extra_data_are_left_out_where_there_are_none():
    plain = resolve(RunConfig(data="cifar10", eps=0.1, step_size=0.02))
    assert plain.run_id == "cifar10-at-d57c22386d-s0"  # as it was before there were extra data
    assert not {"extra_data", "extra_fraction"} & plain.to_dict().keys()


def test_fraction_of_extra_data_is_that_of_the_papers_unless_given():
    assert resolve(RunConfig(extra_data="generated.npz")).extra_fraction == 0.7
    assert resolve(RunConfig(extra_data="generated.npz", extra_fraction=0.8)).extra_fraction == 0.8
    assert resolve(RunConfig()).extra_fraction is None


def test_fraction_goes_with_extra_data():
    with pytest.raises(ValueError, match=r"^extra_fraction goes with extra_data, got 0\.5 without"):
        RunConfig(extra_fraction=0.5)
    with pytest.raises(ValueError, match=r"^extra_fraction must be set; "):
        ResolvedConfig.of(replace(resolve(RunConfig()), extra_data="generated.npz"))


# The norm


def test_l2_is_another_run_and_linf_keeps_its_id():
    linf = resolve(RunConfig(data="cifar10", eps=0.1, step_size=0.02))
    assert linf.run_id == "cifar10-at-d57c22386d-s0"  # as it was before there was another norm
    assert "norm" not in linf.to_dict()
    l2 = replace(linf, norm="L2")
    assert l2.run_id != linf.run_id
    for config in (linf, l2):
        assert ResolvedConfig.of(config_from_mapping(yaml.safe_load(dump_config(config)))) == config


def test_radius_of_l2_may_be_above_1():
    assert RunConfig(norm="L2", eps=2.5).eps == 2.5
    with pytest.raises(ValueError, match=r"eps must be a number in \[0, 1\] .*, got 2.5$"):
        RunConfig(eps=2.5)
    with pytest.raises(ValueError, match=r"eps must be a number of at least 0, got -1$"):
        RunConfig(norm="L2", eps=-1)


def test_fast_training_under_l2_is_refused_in_one_line():
    with pytest.raises(
        ValueError,
        match=r"^method 'fast_at' is defined under norm Linf alone, got norm 'L2'; one step under "
        r"L2 is method 'at' with attack_steps 1$",
    ):
        RunConfig(method="fast_at", norm="L2")
