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
from nasbench_at.config import config_from_mapping, dump_config, load_config
from nasbench_at.presets import resolve

from .conftest import one_line

ROOT = Path(__file__).resolve().parents[2]

FULL = RunConfig(
    data="cifar10",
    validation_fraction=0.2,
    split_seed=3,
    blocks=(("residual",), ("residual", "ada_rk"), ("dense", "mbconv")),
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
    eps=0.05,
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


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("validation_fraction", 0, "lie in (0, 1)"),
        ("validation_fraction", 1.0, "lie in (0, 1)"),
        ("eps", -0.1, "lie in [0, 1] (pixel scale; divide by 255)"),
        ("eps", 8.0, "lie in [0, 1] (pixel scale; divide by 255)"),
        ("eps", float("nan"), "lie in [0, 1]"),
        ("step_size", 0.0, "be positive"),
        ("attack_steps", 0, "be at least 1"),
        ("attack_start", "gauss", "be uniform, normal or none"),
        ("attack_noise", -1e-3, "be at least 0"),
        ("epochs", 0, "be at least 1"),
        ("batch_size", 1, "be at least 2 (BatchNorm needs two images)"),
        ("lr", 0.0, "be positive"),
        ("momentum", 1.0, "lie in [0, 1)"),
        ("momentum", -0.1, "lie in [0, 1)"),
        ("weight_decay", -5e-4, "be at least 0"),
        ("milestones", (9, 3), "be at least 1 and in order"),
        ("milestones", (0, 3), "be at least 1 and in order"),
        ("attention_lr", 0.0, "be positive"),
        ("attention_weight_decay", -1.0, "be at least 0"),
        ("attention_betas", (0.9, 1.0), "lie in [0, 1)"),
        ("num_modules", 2, "be at least 3"),
        ("init_channels", 0, "be at least 1"),
        ("widen_factor", 0, "be at least 1"),
    ],
)
def test_value_out_of_range_is_named_with_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=re.escape(f"{name} must {allowed}")) as error:
        RunConfig(**{name: value})
    assert str(value) in one_line(error)


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
    ],
)
def test_ends_of_the_ranges_are_allowed(name, value):
    assert getattr(RunConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": ()}, "blocks must name at least one block, got an empty set"),
        ({"blocks": (("residual",), (), ("dense",)), "num_modules": 3}, "module 1 has an empty"),
        ({"blocks": (("residual",),) * 2}, "blocks lists 2 sets but num_modules is 15"),
        ({"recipe": "ours"}, "recipe must be one of paper, authors, got 'ours'"),
        ({"attention": "soft"}, "attention mode must be one of learned, fixed, got 'soft'"),
        ({"attention_init": "given"}, "weights go with init 'given', and only with it"),
        ({"block_copies": {"dense": 0}}, "block_copies of 'dense' must be at least 1, got 0"),
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


def test_milestone_factors_must_be_positive():
    with pytest.raises(ValueError, match=r"milestone_factors must be positive, got \(0.0,\)"):
        RunConfig(milestones=(3,), milestone_factors=(0.0,))


def test_no_factors_for_a_milestone_are_refused():
    with pytest.raises(ValueError, match="must be equally many"):
        RunConfig(milestones=(3,), milestone_factors=())


@pytest.mark.parametrize("config", [RunConfig(), FULL, resolve(RunConfig())])
def test_yaml_round_trip_is_exact(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    again = load_config(path)
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
        ("epochs: '3'", "epochs", 3),
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
def test_types_are_converted_where_that_loses_nothing(text, name, value, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert getattr(load_config(path), name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon: 0.1", "unknown configuration key 'epsilon'; did you mean precision or eps?"),
        ("zzz: 1", "unknown configuration key 'zzz'; known: data, "),
        ("eps: abc", "eps: Input should be a valid number"),
        ("eps: 8", "eps must lie in [0, 1]"),
        ("seed: 1.5", "seed: Input should be a valid integer"),
        ("blocks: residual", "blocks: Input should be a valid tuple"),
        ("milestones: 5", "milestones: Input should be a valid tuple"),
        ("recipe: ours", "recipe: Input should be 'paper' or 'authors'"),
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
        ({}, {"blocks": ("mbconv", "residual", "dense", "ada_rk")}),
        ({}, {"num_modules": 9}),
        ({}, {"init_channels": 8}),
        ({}, {"widen_factor": 6}),
        ({}, {"block_options": {"ada_rk": {"separate_norms": True}}}),
        ({}, {"block_copies": {"residual": 2}}),
        ({}, {"attention": "fixed"}),
        ({}, {"attention_init": "uniform"}),
        ({}, {"attention_parameters": {"scale": 0.5}}),
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


def test_run_id_does_not_depend_on_the_order_of_options():
    one = RunConfig(block_copies={"residual": 2, "dense": 3})
    two = RunConfig(block_copies={"dense": 3, "residual": 2})
    assert one.run_id == two.run_id


def test_architecture_takes_the_images_shape_and_the_configuration():
    architecture = FULL.architecture((1, 8, 8), 5)
    assert architecture.input_shape == (1, 8, 8)
    assert architecture.num_classes == 5
    assert architecture.module_blocks == FULL.blocks
    assert architecture.stage_channels == (8, 16, 32)
    assert architecture.attention.mode == "fixed"
    assert architecture.attention.keep == FULL.attention_keep
    assert architecture.attention.recipe == "authors"


@pytest.mark.parametrize(("attention", "init"), [("learned", "normal"), ("fixed", "equal")])
def test_initial_attention_follows_from_its_mode(attention, init):
    config = RunConfig(attention=attention)
    assert config.architecture((1, 8, 8), 10).attention.init == init


def test_hyperparameters_of_an_unfinished_configuration_name_what_is_unset():
    config = replace(resolve(RunConfig()), eps=None, lr=None)
    with pytest.raises(ValueError, match=r"^eps, lr must be set; .*resolve"):
        config.hyperparameters()


def test_hyperparameters_are_the_configuration_s():
    config = resolve(FULL)
    values = config.hyperparameters()
    for item in fields(values):
        assert getattr(values, item.name) == getattr(config, item.name)


def test_mapping_is_not_changed():
    data = {"eps": "0.1", "blocks": ["residual"]}
    config_from_mapping(data)
    assert data == {"eps": "0.1", "blocks": ["residual"]}


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
        {"attention_parameters": {"scale": 1}},
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
