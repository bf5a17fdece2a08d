from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from blocks import BlockInfo, block_info, create_block, list_blocks, register_block

SHIPPED = (
    "residual",
    "mbconv",
    "dense",
    "ada_rk",
    "resnext",
    "dla_tree",
    "implicit_euler",
    "ssp2",
    "ssp3",
    "mid_rk2",
    "bottleneck",
    "separable_conv",
    "plain_conv",
    "convnext",
)


def register(name: str, build, kind: str = "handcrafted"):
    return register_block(name, summary="a test", reference="none", kind=kind)(build)


class Plain(nn.Conv2d):
    def __init__(self, channels: int, *, kernel_size: int = 3) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2)


def test_shipped_blocks_are_registered_in_order():
    assert list_blocks() == SHIPPED


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("residual", "handcrafted", {"activation": "relu", "norm": "batch"}),
        (
            "mbconv",
            "searched",
            {
                "expansion": 2,
                "kernel_size": 3,
                "se_ratio": 0.25,
                "drop_connect": 0.2,
                "activation": "silu",
                "norm": "batch",
            },
        ),
        (
            "dense",
            "handcrafted",
            {
                "num_layers": 2,
                "bottleneck": 4,
                "growth": None,
                "activation": "relu",
                "norm": "batch",
            },
        ),
        (
            "ada_rk",
            "ode",
            {
                "separate_norms": False,
                "authors_updates": True,
                "activation": "relu",
                "norm": "batch",
            },
        ),
        (
            "resnext",
            "handcrafted",
            {"cardinality": 8, "base_width": 64, "activation": "relu", "norm": "batch"},
        ),
        ("dla_tree", "handcrafted", {"activation": "relu", "norm": "batch"}),
        (
            "implicit_euler",
            "ode",
            {"iterations": 1, "step": 0.1, "activation": "relu", "norm": "layer"},
        ),
        ("ssp2", "ode", {"activation": "relu", "norm": "batch"}),
        ("ssp3", "ode", {"activation": "relu", "norm": "batch"}),
        ("mid_rk2", "ode", {"activation": "relu", "norm": "batch"}),
        ("bottleneck", "handcrafted", {"reduction": 4, "activation": "relu", "norm": "batch"}),
        (
            "separable_conv",
            "handcrafted",
            {"kernel_size": 3, "activation": "relu", "norm": "batch"},
        ),
        ("plain_conv", "handcrafted", {"kernel_size": 3, "activation": "relu", "norm": "batch"}),
        (
            "convnext",
            "handcrafted",
            {
                "expansion": 4,
                "layer_scale": 1e-6,
                "activation": "gelu",
                "norm": "channel_layer",
            },
        ),
    ],
)
def test_metadata_names_kind_and_default_options(name, kind, options):
    info = block_info(name)
    assert (info.name, info.kind, dict(info.options)) == (name, kind, options)
    assert info.summary
    assert info.reference


def test_metadata_cannot_be_changed():
    info = block_info("residual")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.summary = "another"
    with pytest.raises(TypeError, match="does not support item assignment"):
        info.options["norm"] = "none"


def test_registered_builder_is_returned_and_built_with_its_options(own_registry):
    assert register("plain", Plain) is Plain
    assert list_blocks() == (*SHIPPED, "plain")
    assert create_block("plain", 4, kernel_size=5).kernel_size == (5, 5)
    assert block_info("plain") == BlockInfo(
        "plain", "a test", "none", "handcrafted", {"kernel_size": 3}, Plain
    )


def test_a_function_can_be_a_builder(own_registry):
    register("function", lambda channels, *, bias=True: nn.Conv2d(channels, channels, 1, bias=bias))
    assert create_block("function", 3, bias=False)(torch.rand(1, 3, 2, 2)).shape == (1, 3, 2, 2)
    assert create_block("function", 3, bias=False).bias is None


def test_taken_name_is_refused_and_names_its_owner(own_registry):
    message = r"block 'residual' is registered already, by blocks\.residual; choose another name"
    with pytest.raises(ValueError, match=message):
        register("residual", Plain)
    assert block_info("residual").build is not Plain


@pytest.mark.parametrize("name", ["MBConv", "two words", "3x3", "", "a-b"])
def test_name_must_be_a_lower_case_identifier(own_registry, name):
    message = f"a block's name must be a lower-case identifier, got {name!r}"
    with pytest.raises(ValueError, match=message):
        register(name, Plain)


def test_unknown_kind_is_refused(own_registry):
    with pytest.raises(
        ValueError, match="kind must be one of handcrafted, searched, ode, got 'alien'"
    ):
        register("plain", Plain, kind="alien")


@pytest.mark.parametrize(
    ("build", "culprit"),
    [
        (lambda channels, stride=1: None, "stride"),
        (lambda channels, *, stride: None, "stride"),
        (lambda channels, **options: None, "options"),
        (lambda channels, *rest: None, "rest"),
    ],
    ids=["positional", "no-default", "var-keyword", "var-positional"],
)
def test_options_must_be_keyword_only_with_default(own_registry, build, culprit):
    message = f"block 'plain': after 'channels' every parameter must .* but '{culprit}' is not"
    with pytest.raises(TypeError, match=message):
        register("plain", build)
    assert "plain" not in list_blocks()


@pytest.mark.parametrize("function", [block_info, lambda name: create_block(name, 4)])
def test_unknown_block_lists_near_matches_and_all_names(function):
    message = r"unknown block 'residul'; did you mean 'residual'\? known: " + ", ".join(SHIPPED)
    message += "; register_block adds your own, on the command line --plugins FILE$"
    with pytest.raises(ValueError, match=message):
        function("residul")


def test_unknown_block_without_near_match_lists_all_names():
    with pytest.raises(ValueError, match="unknown block 'qqq'; known: residual, mbconv"):
        block_info("qqq")


def test_unknown_option_lists_near_matches():
    message = (
        r"block 'mbconv' has no option 'expansions'; did you mean 'expansion'\? "
        r"known: expansion, kernel_size"
    )
    with pytest.raises(ValueError, match=message):
        create_block("mbconv", 4, expansions=3)


def test_value_that_a_block_refuses_is_told_with_its_name():
    with pytest.raises(ValueError, match=r"^block 'residual': norm must be one of .* got 'odd'"):
        create_block("residual", 4, norm="odd")


@pytest.mark.parametrize(
    ("name", "option", "value", "allowed"),
    [
        ("ada_rk", "separate_norms", "no", "true or false"),
        ("ada_rk", "separate_norms", 0, "true or false"),
        ("mbconv", "expansion", "x", "a whole number"),
        ("mbconv", "expansion", 1.5, "a whole number"),
        ("mbconv", "expansion", True, "a whole number"),
        ("mbconv", "expansion", None, "a whole number"),
        ("mbconv", "se_ratio", "0.5", "a number"),
        ("mbconv", "se_ratio", True, "a number"),
        ("mbconv", "se_ratio", float("inf"), "finite and at least 0"),
        ("mbconv", "se_ratio", -1, "finite and at least 0"),
        ("implicit_euler", "iterations", 1.5, "a whole number"),
        ("convnext", "layer_scale", float("nan"), "finite"),
        ("dense", "growth", "x", "a whole number or None"),
        ("residual", "norm", ["batch"], "a text"),
    ],
)
def test_value_of_another_type_or_range_is_refused(name, option, value, allowed):
    message = rf"^block '{name}': {option} must (be|lie) {allowed}, got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=message):
        create_block(name, 8, **{option: value})


def test_value_that_an_option_takes_is_accepted():
    assert create_block("convnext", 4, layer_scale=1).layer_scale.flatten().tolist() == [1.0] * 4
    assert create_block("dense", 4, growth=None).project is None
    assert create_block("dense", 4, growth=np.int64(3)).project is not None


def test_options_of_ones_own_take_what_their_annotations_or_defaults_say(own_registry):
    taken = []

    def build(
        channels,
        *,
        factor=1,
        flag=False,
        things=(),
        act="relu",
        size: Any = 3,
        half: float | None = 0.5,
        rate: float = None,  # noqa: RUF013  as users write it
        steps: int = 0.5,
    ):
        taken.append((factor, flag, things, act, size, half, rate, steps))
        return nn.Identity()

    register("own", build)
    values = {"factor": 0.5, "flag": True, "things": [1], "act": None, "size": "large"}
    create_block("own", 2, **values, half=None, rate=None, steps=0.5)
    create_block("own", 2, **values, half=1, rate=2, steps=3)
    assert taken == [
        (0.5, True, [1], None, "large", None, None, 0.5),
        (0.5, True, [1], None, "large", 1, 2, 3),
    ]
    for options, allowed in (
        ({"factor": "1"}, "factor must be a number, got '1'"),
        ({"flag": 1}, "flag must be true or false, got 1"),
        ({"half": "x"}, "half must be a number or None, got 'x'"),
        ({"rate": "x"}, "rate must be a number or None, got 'x'"),
    ):
        with pytest.raises(ValueError, match=f"^block 'own': {allowed}$"):
            create_block("own", 2, **options)


@pytest.mark.parametrize("channels", [0, -3, True, 2.0])
def test_channels_must_be_positive(channels):
    with pytest.raises(
        ValueError, match=f"channels must be a whole number of at least 1, got {channels}"
    ):
        create_block("residual", channels)


def test_same_seed_gives_same_block():
    torch.manual_seed(3)
    first = create_block("dense", 4).state_dict()
    torch.manual_seed(3)
    second = create_block("dense", 4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
