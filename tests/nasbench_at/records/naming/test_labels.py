from __future__ import annotations

import pytest

import nasbench_at.networks.zoo.ds_net as zoo
from nasbench_at.config import RunConfig
from nasbench_at.config.architecture import NAMED_DS_NETS, architecture_of
from nasbench_at.evaluation.standard_attacks import standard_attacks
from nasbench_at.networks.zoo import create_model, list_models
from nasbench_at.records import describe_attack
from nasbench_at.records.naming.labels import (
    data_label,
    method_label,
    metric_label,
    network_label,
    network_name,
)


def config(**fields):
    return RunConfig(**fields).spelled_out().to_dict()


@pytest.mark.parametrize("name", [name for name in list_models() if "ds_net" in name])
def test_registered_networks_are_those_of_their_names(name, monkeypatch):
    monkeypatch.setattr(zoo, "build_network", lambda architecture: architecture)
    architecture = create_model(name, 10, (3, 32, 32))
    assert NAMED_DS_NETS[name] == architecture_of({"model": name}) == architecture
    assert network_name({"model": name}) == name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "ds_net_4"),
        ({"widen_factor": 6}, "ds_net_6"),
        ({"attention": "fixed"}, "ds_net_4_fixed"),
        ({"blocks": ("dense",) * 4, "attention": "fixed"}, "ds_net_4_same_dense"),
        ({"model": "ds_net_4", "model_options": {"init_channels": 20}}, "ds_net_4"),
        ({"model": "resnet50"}, "resnet50"),
        ({"model": "robnet", "model_options": {"cells": 3}}, "robnet, cells 3"),
        (
            {"model": "ds_net_4", "model_options": {"init_channels": 8}},
            "DS-Net of residual + mbconv + dense + ada_rk, 15 modules of 8 channels, k = 4",
        ),
        (
            {"blocks": ("residual",), "num_modules": 3},
            "DS-Net of residual, 3 modules of 20 channels, k = 4",
        ),
        (
            {"blocks": (("residual", "dense"),) * 2 + (("mbconv",),), "num_modules": 3},
            "DS-Net of residual + dense (2 times) / mbconv, 3 modules of 20 channels, k = 4",
        ),
        (
            {"attention_init": "uniform"},
            "DS-Net of residual + mbconv + dense + ada_rk, learned uniform weights, 15 modules of "
            "20 channels, k = 4",
        ),
        (
            {"attention_init": "log_normal", "attention_init_options": {"std": 25.0, "mean": 1.0}},
            "DS-Net of residual + mbconv + dense + ada_rk, learned log-normal (mean 1, std 25) "
            "weights, 15 modules of 20 channels, k = 4",
        ),
    ],
)
def test_networks_have_names(fields, name):
    assert network_name(config(**fields)) == name


def test_options_and_masks_make_another_network_of_the_papers_one():
    for fields in (
        {"block_options": {"ada_rk": {"separate_norms": True}}},
        {"attention_keep": ((0, 1),) * 15},
    ):
        assert network_name(config(**fields)).startswith("DS-Net of residual")


def test_labels_are_the_papers():
    assert network_label(config()) == "DS-Net-4-softmax"
    assert network_label(config(model="wrn_34_10")) == "WRN-34-10"
    assert (data_label("cifar10"), data_label("mine")) == ("CIFAR-10", "mine")
    assert (method_label("at"), method_label("trades", 6.0)) == ("AT", "TRADES, β = 6")
    assert (metric_label("cw"), metric_label("square")) == ("C&W", "square")


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("fgsm", {}, "one step of 0.031, from the image"),
        ("pgd", {}, "20 steps of 0.008, uniform start"),
        (
            "pgd",
            {"restarts": 3, "counts": "any"},
            "20 steps of 0.008, uniform start, 3 restarts, any iterate",
        ),
        ("aa", {}, "standard version"),
        ("apgd-ce", {}, "apgd-ce"),
        ("apgd-ce+square", {}, "apgd-ce + square"),
    ],
)
def test_attacks_are_described(name, options, text):
    settings = standard_attacks([name], eps=0.031, **options)[name].settings()
    assert describe_attack(settings) == text


def test_what_is_no_attack_has_no_settings():
    assert describe_attack({}) == ""
    assert describe_attack({"attacks": ["pgd"]}) == "the images that no attack fooled"


@pytest.mark.parametrize(
    ("corruptions", "severities", "text"),
    [
        (["blur"], [3], "severity 3"),
        (["blur"], [1, 2], "mean of severities 1, 2"),
        (["blur", "shift"], [3], "mean of 2 corruptions, severity 3"),
        (["blur", "shift"], [1, 5], "mean of 2 corruptions, severities 1, 5"),
    ],
)
def test_corruptions_are_described(corruptions, severities, text):
    assert describe_attack({"corruptions": corruptions, "severities": severities}) == text


def test_certificates_are_described():
    assert describe_attack({"sigma": 0.25, "n0": 100, "n": 100_000, "alpha": 0.001}) == (
        "certified lower bound of the smoothed classifier, sigma 0.25, n 100000, alpha 0.001"
    )
