from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from analysis.gradient_variance import (
    GradientVariance,
    compute_gradient_variance,
    compute_run_gradient_variance,
    draw_gradient_variance,
)
from analysis.loss_gradients import choose_method, select_parameters
from analysis.run_images import first_images
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LinfPGD
from nasbench_at.config import resolve
from nasbench_at.training.methods import (
    AdversarialTraining,
    LossAndLogits,
    StandardTraining,
    Trades,
)
from tests.analysis.runs import left_as_it_was, make_run
from tests.nasbench_at.conftest import tiny_config


class SquaredLoss(StandardTraining):
    """Mean over the images of ‖logits − one-hot‖²."""

    def loss(self, model, x, x_adv, y):
        logits = model(x_adv)
        target = F.one_hot(y, logits.shape[1]).to(logits.dtype)
        return LossAndLogits((logits - target).square().sum(dim=1).mean(), logits)


@pytest.fixture
def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3))


@pytest.fixture
def images():
    return torch.rand(12, 1, 2, 3), torch.randint(3, (12,))


@pytest.fixture
def network():
    net = build_network(
        Architecture(num_modules=3, init_channels=4, widen_factor=1, input_shape=(1, 8, 8))
    )
    net(torch.rand(8, 1, 8, 8))
    return net


def softmax_gradients(model, x, y):
    """Each image's gradient of the cross entropy, (softmax − one-hot)(x, 1)ᵀ, in NumPy."""
    with torch.no_grad():
        slopes = model(x).softmax(dim=1).double().numpy() - np.eye(3)[y.numpy()]
    return outer_with_bias(slopes, x)


def outer_with_bias(slopes, x):
    pixels = np.concatenate([x.flatten(1).double().numpy(), np.ones((len(x), 1))], axis=1)
    return (slopes[:, :, None] * pixels[:, None, :]).reshape(len(x), -1)


def variance_of(gradients):
    return np.square(gradients - gradients.mean(axis=0)).sum(axis=1).mean()


def brute_force(model, x, y, names):
    """Each image's gradient by a backward pass through everything."""
    gradients = []
    for i in range(len(y)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        parameters = [model.get_parameter(name) for name in names]
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        gradients.append(torch.cat([g.flatten() for g in found]).double().numpy())
    return np.array(gradients)


def test_linear_model_with_cross_entropy_has_its_exact_variance(linear, images):
    found = compute_gradient_variance(linear, *images, batch_size=1)
    expected = softmax_gradients(linear, *images)
    assert found.variance == pytest.approx(variance_of(expected), rel=1e-5)
    assert found.mean_norm == pytest.approx(np.linalg.norm(expected.mean(axis=0)), rel=1e-5)
    assert (found.num_batches, found.batch_size) == (12, 1)


def test_linear_model_with_squared_loss_has_its_exact_variance(linear, images):
    x, y = images
    with torch.no_grad():
        slopes = 2 * (linear(x).double().numpy() - np.eye(3)[y.numpy()])
    found = compute_gradient_variance(linear, x, y, method=SquaredLoss(), batch_size=1)
    assert found.variance == pytest.approx(variance_of(outer_with_bias(slopes, x)), rel=1e-5)


def test_expected_gradient_is_that_of_all_images_whatever_the_batches(linear, images):
    expected = np.linalg.norm(softmax_gradients(linear, *images).mean(axis=0))
    found = [compute_gradient_variance(linear, *images, batch_size=size) for size in (3, 6)]
    assert [point.mean_norm for point in found] == pytest.approx([expected] * 2, rel=1e-5)
    assert 0 < found[1].variance < found[0].variance


def test_second_pass_takes_every_image_once_more(linear, images):
    one = compute_gradient_variance(linear, *images, batch_size=1)
    two = compute_gradient_variance(linear, *images, batch_size=1, num_batches=24)
    assert two.num_batches == 24
    assert two.variance == pytest.approx(one.variance, rel=1e-6)


@pytest.mark.parametrize("layer", ["last", "stages.0.blocks.1", "stem.weight", "all"])
def test_any_layer_of_a_network_has_the_variance_of_full_backward_passes(network, layer):
    x, y = torch.rand(6, 1, 8, 8), torch.randint(10, (6,))
    with left_as_it_was(network):
        found = compute_gradient_variance(network, x, y, layer=layer, batch_size=1)
    names = select_parameters(network, layer)
    expected = variance_of(brute_force(network.eval(), x, y, names))
    assert found.variance == pytest.approx(expected, rel=1e-4)


def test_adversarial_loss_is_that_of_the_attacked_images(network):
    x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
    attack = LinfPGD(0.1, steps=2, start="none")
    found = compute_gradient_variance(
        network, x, y, method=AdversarialTraining(attack), batch_size=1
    )
    expected = compute_gradient_variance(network, attack(network, x, y), y, batch_size=1)
    assert found.variance == pytest.approx(expected.variance, rel=1e-4)
    assert found.variance != compute_gradient_variance(network, x, y, batch_size=1).variance


def test_last_layer_is_the_linear_one_though_the_attention_comes_after_it(network):
    assert select_parameters(network, "last") == ("head.weight", "head.bias")
    fixed = network.attention.logits.requires_grad_(False)
    assert fixed.requires_grad == ("attention.logits" in select_parameters(network, "all"))


def test_frozen_layer_can_be_measured_and_stays_frozen(linear, images):
    expected = compute_gradient_variance(linear, *images, batch_size=1)
    linear.requires_grad_(False)
    with left_as_it_was(linear):
        assert compute_gradient_variance(linear, *images, batch_size=1) == expected


def test_loss_names_stand_for_the_runs_attack_and_method():
    config = resolve(tiny_config(method="trades", beta=3, eps=0.2))
    assert isinstance(choose_method(config, "natural"), StandardTraining)
    adversarial = choose_method(config, "adversarial")
    assert isinstance(adversarial, AdversarialTraining)
    assert (adversarial.attack.eps, adversarial.attack.steps) == (0.2, 2)
    training = choose_method(config, "training")
    assert isinstance(training, Trades)
    assert training.beta == 3
    with pytest.raises(ValueError, match="must be one of natural, adversarial, training, got 'x'"):
        choose_method(config, "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 13}, r"batch_size must lie in 1\.\.12, the number of images, got 13"),
        ({"batch_size": 0}, r"batch_size must lie in 1\.\.12, .*, got 0"),
        ({"batch_size": 7}, "needs images for at least 2 batches, got 12 for batches of 7"),
        ({"batch_size": 12, "num_batches": 10}, "at least 2 batches, got 12 for batches of 12"),
        ({"num_batches": 1}, "num_batches must be at least 2, got 1"),
        ({"layer": "1.wieght"}, "layer '1.wieght' has no parameters; .*must be last, all, or lie"),
    ],
)
def test_bad_option_is_named(linear, images, options, message):
    with pytest.raises(ValueError, match=message):
        compute_gradient_variance(linear, *images, **{"batch_size": 3, **options})


def test_model_without_a_linear_layer_needs_the_layers_name():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    with pytest.raises(ValueError, match="layer 'last' has no parameters"):
        select_parameters(model, "last")


def test_run_is_measured_at_its_selected_weights(tmp_path):
    run = make_run(tmp_path / "runs")
    with left_as_it_was(run.network):
        found = compute_run_gradient_variance(run, loss="natural", num_batches=3)
    images, labels = first_images(run, "train")
    assert found == compute_gradient_variance(
        run.network, images, labels, batch_size=32, num_batches=3
    )


def point(variance, layer="last"):
    return GradientVariance(layer, variance, 1.0, 50, 128)


def test_runs_are_drawn_as_bars():
    (axes,) = draw_gradient_variance({"a": point(0.5), "b": point(0.25)}, loss="training").axes
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.25]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert axes.get_title() == "training loss, last layer, 50 batches of 128 images"


@pytest.mark.parametrize("runs", [{}, {"a": point(1), "b": point(1, layer="all")}])
def test_runs_of_different_settings_are_not_drawn_together(runs):
    with pytest.raises(ValueError, match=r"runs must share layer, .*, got [02] different settings"):
        draw_gradient_variance(runs, loss="training")
