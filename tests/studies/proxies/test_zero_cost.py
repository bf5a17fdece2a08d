from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from analysis.lipschitz import compute_lipschitz
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import FGSM
from nasbench_at.networks.ds_net import count_parameters
from nasbench_at.networks.flops import count_flops
from studies.proxies import ZERO_COST, zero_cost
from tests.analysis.runs import left_as_it_was


def linear_chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(
        Architecture(
            blocks=("residual", "mbconv"),
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            num_classes=4,
            input_shape=(1, 8, 8),
        )
    )


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(20, 1, 8, 8), torch.randint(4, (20,))


@pytest.fixture
def small():
    torch.manual_seed(2)
    return torch.rand(5, 1, 2, 2), torch.randint(2, (5,))


@pytest.mark.parametrize("name", ZERO_COST)
def test_network_is_left_as_it_was_and_the_score_repeats(name, network, batch):
    score = ZERO_COST[name]
    with left_as_it_was(network):
        first = score(network, *batch, 0.1)
    assert math.isfinite(first)
    assert score(network, *batch, 0.1) == first


def test_counts_are_those_of_the_network(network, batch):
    assert zero_cost.parameters(network, *batch, 0.1) == count_parameters(network)
    assert zero_cost.flops(network, *batch, 0.1) == count_flops(network.eval(), (1, 8, 8))


def test_synflow_of_two_linear_layers(small):
    # Each layer's weights times gradients add up to the output for ones.
    network = linear_chain()
    first, second = (layer.weight.detach().double().abs() for layer in list(network)[1:])
    output = float((second @ first @ torch.ones(4, dtype=torch.float64)).sum())
    assert zero_cost.synflow(network, *small, 0.1) == pytest.approx(math.log10(2 * output))


def test_gradient_norm_is_that_of_backward(small):
    network, (x, y) = linear_chain(), small
    nn.functional.cross_entropy(network(x), y).backward()
    squares = sum(float(p.grad.square().sum()) for p in network.parameters())
    network.zero_grad(set_to_none=True)
    assert zero_cost.gradient_norm(network, x, y, 0.1) == pytest.approx(math.sqrt(squares))


class Squares(nn.Module):
    """Its Jacobian at an image is twice the image."""

    def forward(self, x):
        return x.flatten(1).square()


def test_jacobian_covariance_is_that_of_its_definition(small):
    x, y = small
    values = np.linalg.eigvalsh(np.corrcoef(x.flatten(1).double().numpy())).clip(0) + 1e-5
    expected = -float((np.log(values) + 1 / values).sum())
    found = zero_cost.jacobian_covariance(Squares(), x, y, 0.1)
    assert found == pytest.approx(expected, rel=1e-3)


def test_jacobians_that_are_alike_score_worse(small):
    x, y = small
    alike = x[:1] + 0.01 * x
    assert zero_cost.jacobian_covariance(Squares(), alike, y, 0.1) < (
        zero_cost.jacobian_covariance(Squares(), x, y, 0.1)
    )


def test_croze_of_a_twin_that_is_the_same_is_four_a_layer(small, monkeypatch):
    monkeypatch.setattr(zero_cost, "CROZE_STEP", 0.0)
    assert zero_cost.croze(linear_chain(), *small, 0.0) == pytest.approx(8, rel=1e-5)
    assert zero_cost.croze(linear_chain(), *small, 0.3) < 7.99


def test_croze_of_one_layer_is_that_of_its_definition():
    # The attack turns the images round, and with them the gradient.
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, 1, -1, -1], [-1, -1, 1, 1]]))
    flat, y = torch.tensor([[0.7, 0.6, 0.3, 0.4], [0.3, 0.3, 0.6, 0.7]]), torch.tensor([0, 1])
    x = flat.view(2, 1, 2, 2)
    found = zero_cost.croze(network, x, y, 0.9)

    def gradient_of(model, images):
        loss = nn.functional.cross_entropy(model(images), y)
        return torch.autograd.grad(loss, model[1].weight)[0]

    weight = network[1].weight.detach().clone()
    kept = gradient_of(network, x)
    features = network(x).detach()
    with torch.no_grad():
        network[1].weight += 0.1 * kept / kept.norm() * weight.norm()
    attacked = FGSM(0.9)(network, x, y)
    changed = gradient_of(network, attacked)
    pairs = ((features, network(attacked)), (weight, network[1].weight), (kept, changed))
    z, theta, g = (
        float(nn.functional.cosine_similarity(a.flatten(), b.detach().flatten(), dim=0))
        for a, b in pairs
    )
    assert g < 0
    assert found == pytest.approx((1 + z) * (1 + theta) * -g, rel=1e-4)


def test_ntk_of_a_linear_network_is_that_of_the_images(small):
    x, y = small
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    flat = x[:3].flatten(1).double()
    values = torch.linalg.eigvalsh(2 * flat @ flat.T)
    found = zero_cost.adversarial_ntk(network, x[:3], y[:3], 0.0)
    assert found == pytest.approx(-math.log10(values[-1] / values[0]), rel=1e-3)
    attacked = FGSM(0.2)(network, x[:3], y[:3]).flatten(1).double()
    values = torch.linalg.eigvalsh(2 * attacked @ attacked.T)
    found = zero_cost.adversarial_ntk(network, x[:3], y[:3], 0.2)
    assert found == pytest.approx(-math.log10(values[-1] / values[0]), rel=1e-3)


def test_lipschitz_score_is_the_bound_of_the_network(network, batch):
    x, y = batch
    bound = compute_lipschitz(network, x[:2], num_ascents=1, num_steps=1).bound_log10
    assert zero_cost.initial_lipschitz(network, x, y, 0.1) == -bound
    with pytest.raises(ValueError, match="model must be a DS-Net, got a Squares"):
        zero_cost.initial_lipschitz(Squares(), x, y, 0.1)
