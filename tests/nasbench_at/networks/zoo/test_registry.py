from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from torch import nn

from nasbench_at.networks.zoo import (
    create_model,
    list_models,
    model_info,
    register_model,
    register_model_pattern,
    registry,
)


@pytest.fixture(autouse=True)
def _undo_registrations(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {})
    monkeypatch.setattr(registry, "_FAMILIES", {})


def linear(num_classes, input_shape, *, bias=True):
    """Flattens the images: the simplest network."""
    in_features = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes, bias=bias))


def register(name, build=linear):
    return register_model(name, summary="a test", reference="none")(build)


def register_pattern():
    @register_model_pattern(
        "mlp_W_D", r"mlp_(\d+)_(\d+)", summary="layers", reference="the exercise"
    )
    def make(width, depth):
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")

        def build(num_classes, input_shape, *, bias=False):
            layers = [nn.LazyLinear(width, bias=bias) for _ in range(depth)]
            return nn.Sequential(nn.Flatten(), *layers, nn.LazyLinear(num_classes, bias=bias))

        return build

    return make


def test_registered_network_is_described_listed_and_built():
    assert register("lin") is linear
    info = model_info("lin")
    assert (info.name, info.summary, info.reference) == ("lin", "a test", "none")
    assert dict(info.options) == {"bias": True}
    assert info.build is linear
    model = create_model("lin", 5, (1, 8, 9), bias=False)
    assert model(torch.rand(2, 1, 8, 9)).shape == (2, 5)
    assert model[1].bias is None


def test_a_network_is_for_ten_classes_and_small_colour_images_unless_told():
    register("lin")
    assert create_model("lin")[1].weight.shape == (10, 3 * 32 * 32)


def test_list_keeps_the_order_of_registration_and_filters():
    for name in ("wide_b", "narrow", "wide_a"):
        register(name)
    assert list_models() == ("wide_b", "narrow", "wide_a")
    assert list_models("wide_*") == ("wide_b", "wide_a")
    assert list_models("none_*") == ()


def test_description_cannot_be_changed():
    register("lin")
    info = model_info("lin")
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"
    with pytest.raises(TypeError):
        info.options["bias"] = False


def test_unknown_name_lists_near_matches_and_all_names():
    register("linear")
    register("conv")
    register_pattern()
    message = "unknown model 'liner'; did you mean 'linear'? known: linear, conv, mlp_W_D"
    for refuse in (model_info, create_model):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            refuse("liner")


def test_unknown_option_lists_near_matches():
    register("lin")
    message = "model 'lin' has no option 'bais'; did you mean 'bias'? known: bias"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        create_model("lin", bais=False)


def test_value_of_another_type_is_refused():
    register("lin")
    with pytest.raises(ValueError, match=r"^model 'lin': bias must be true or false, got 'no'$"):
        create_model("lin", bias="no")


def test_name_is_registered_once():
    register("lin")
    with pytest.raises(ValueError, match="model 'lin' is registered already; choose another name"):
        register("lin", lambda num_classes, input_shape: nn.Identity())
    assert model_info("lin").build is linear


@pytest.mark.parametrize("name", ["Lin", "lin-1", "", "1in"])
def test_name_must_be_a_lower_case_identifier(name):
    message = f"a model's name must be a lower-case identifier, got {name!r}"
    with pytest.raises(ValueError, match=message):
        register(name)


@pytest.mark.parametrize(
    "build",
    [lambda: None, lambda num_classes: None, lambda input_shape, num_classes: None],
)
def test_builder_must_take_classes_and_shape(build):
    message = "model 'lin': its builder must take num_classes and input_shape"
    with pytest.raises(TypeError, match=message):
        register("lin", build)
    assert list_models() == ()


@pytest.mark.parametrize(
    "build",
    [
        lambda num_classes, input_shape, width: None,
        lambda num_classes, input_shape, width=3: None,
        lambda num_classes, input_shape, *, width: None,
        lambda num_classes, input_shape, **width: None,
    ],
)
def test_builders_options_must_be_keyword_only_with_defaults(build):
    message = (
        "model 'lin': after 'input_shape' every parameter must be keyword-only with a default, but "
        "'width' is not"
    )
    with pytest.raises(TypeError, match=message):
        register("lin", build)


def test_pattern_builds_the_member_that_a_name_means():
    make = register_pattern()
    assert make(3, 1) is not None  # the decorator gives back what it decorates
    info = model_info("mlp_7_2")
    assert (info.name, info.summary, info.reference) == ("mlp_7_2", "layers", "the exercise")
    assert dict(info.options) == {"bias": False}
    model = create_model("mlp_7_2", 4, (1, 8, 8), bias=True)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    assert [tuple(layer.weight.shape) for layer in model[1:]] == [(7, 64), (7, 7), (4, 7)]
    assert list_models() == ()


def test_pattern_must_match_the_whole_name():
    register_pattern()
    for name in ("mlp_7", "mlp_7_2_1", "my_mlp_7_2", "mlp_7_x"):
        with pytest.raises(ValueError, match=f"unknown model {name!r}; .*known: mlp_W_D"):
            model_info(name)


def test_name_comes_before_pattern():
    register_pattern()
    register("mlp_1_1")
    assert model_info("mlp_1_1").build is linear


def test_pattern_refuses_numbers_that_make_no_network():
    register_pattern()
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        create_model("mlp_7_0")


def test_patterns_builder_is_checked_too():
    register_model_pattern("bad_N", r"bad_(\d+)", summary="a test", reference="none")(
        lambda number: lambda shape: None
    )
    message = "model 'bad_3': its builder must take num_classes and input_shape"
    with pytest.raises(TypeError, match=message):
        model_info("bad_3")


@pytest.mark.parametrize("num_classes", [1, 0, -1])
def test_network_has_at_least_two_classes(num_classes):
    register("lin")
    with pytest.raises(
        ValueError, match=f"num_classes must be a whole number from 2 to 1000000, got {num_classes}"
    ):
        create_model("lin", num_classes)


@pytest.mark.parametrize("shape", [(3, 32), (0, 8, 8), (3, 7, 8), (3, 8, 7), (1, 3, 8, 8)])
def test_images_have_channels_and_eight_by_eight_pixels(shape):
    register("lin")
    message = f"^input_shape must be .*, got {re.escape(str(shape))}$"
    with pytest.raises(ValueError, match=message):
        create_model("lin", input_shape=shape)
