from __future__ import annotations

import pytest
import torch
from torch import nn

from nasbench_at.config.architecture import Architecture
from nasbench_at.evaluation.model_costs import measure_model
from nasbench_at.networks.graph import build_graph
from nasbench_at.networks.zoo import create_model, register_model
from nasbench_at.networks.zoo import registry as zoo_registry


@pytest.fixture
def two_layers(monkeypatch):
    monkeypatch.setattr(zoo_registry, "_REGISTRY", dict(zoo_registry._REGISTRY))

    @register_model("two_layers", summary="a convolution and a matrix", reference="here")
    def build(num_classes, input_shape):
        channels, height, width = input_shape
        conv = nn.Conv2d(channels, 2, 3, padding=1)
        return nn.Sequential(conv, nn.Flatten(), nn.Linear(2 * height * width, num_classes))


def test_operations_are_twice_the_multiply_adds(two_layers):
    costs = measure_model("two_layers", num_classes=5, input_shape=(3, 8, 9))
    assert costs.flops == 2 * (8 * 9 * 2 * 3 * 9 + 2 * 8 * 9 * 5)
    assert costs.num_params == (2 * 27 + 2) + (2 * 8 * 9 * 5 + 5)
    assert costs.seconds_per_step is None
    assert (costs.summary, costs.reference) == ("a convolution and a matrix", "here")


def test_ds_net_costs_what_its_graph_says():
    graph = build_graph(Architecture())
    costs = measure_model("ds_net_4")
    assert costs.num_params == graph.graph["num_params"] == 20_780_245
    assert costs.flops == sum(node["flops"] for _, node in graph.nodes(data=True))


def test_network_that_takes_gradients_in_its_forward_pass_is_counted():
    plain = measure_model("tiny_ie_resnet", input_shape=(1, 8, 8)).flops
    network = create_model("tiny_ie_resnet", 10, (1, 8, 8))
    assert plain > 2 * sum(p.numel() for p in network.parameters())


def test_attack_step_is_timed(two_layers):
    seconds = measure_model("two_layers", time_on=torch.device("cpu")).seconds_per_step
    assert seconds is not None
    assert 0 < seconds < 10
