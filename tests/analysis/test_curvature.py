from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from analysis.block_smoothness import (
    BlockSmoothness,
    compute_block_smoothness,
    compute_run_block_smoothness,
    compute_sequence_bounds,
    put_in_sequence,
)
from analysis.convergence import ConvergenceBound, compute_run_convergence_bound
from analysis.curvature import compute_curvature, compute_run_curvature
from analysis.gradient_variance import compute_gradient_variance
from nasbench_at import Architecture, build_network
from nasbench_at.attacks import LinfPGD
from nasbench_at.training.methods import AdversarialTraining, LossAndLogits, StandardTraining
from tests.analysis.runs import left_as_it_was, make_run

HOLDS, FAILS = "holds here", "does not hold here"


class SquaredLoss(StandardTraining):
    """Mean over the images of ‖logits‖²."""

    def loss(self, model, x, x_adv, y):
        logits = model(x_adv)
        return LossAndLogits(logits.square().sum(dim=1).mean(), logits)


@pytest.fixture
def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False))


@pytest.fixture
def images():
    return torch.rand(10, 1, 2, 3), torch.randint(3, (10,))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = build_network(
        Architecture(
            num_modules=3,
            init_channels=4,
            widen_factor=1,
            input_shape=(1, 6, 6),
            blocks=("residual", "mbconv"),
        )
    )
    net(torch.rand(16, 1, 6, 6))
    return net


def test_quadratic_loss_has_its_exact_value_gradient_and_top_eigenvalue(linear, images):
    x, y = images
    with left_as_it_was(linear):
        found = compute_curvature(linear, x, y, method=SquaredLoss(), tolerance=1e-6)
    # ‖Wx‖² has the Hessian 2xxᵀ in every row of W.
    moments = (x.flatten(1).T @ x.flatten(1) / len(x)).double()
    weight = linear[1].weight.detach().double()
    assert found.top_eigenvalue == pytest.approx(
        2 * torch.linalg.eigvalsh(moments)[-1].item(), 1e-5
    )
    assert found.gradient_norm == pytest.approx((2 * weight @ moments).norm().item(), rel=1e-5)
    assert found.loss == pytest.approx((weight @ moments @ weight.T).trace().item(), rel=1e-5)
    assert found.eigenvalue_error <= 1e-6 * found.top_eigenvalue


def test_batches_do_not_change_the_result(linear, images):
    one, many = (compute_curvature(linear, *images, batch_size=size) for size in (10, 3))
    assert many.top_eigenvalue == pytest.approx(one.top_eigenvalue, rel=1e-3)
    assert many.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
    assert many.loss == pytest.approx(one.loss, rel=1e-5)


def test_parameter_that_takes_no_part_is_flat(linear, images):
    expected = compute_curvature(linear, *images, tolerance=1e-5)
    linear.register_parameter("unused", nn.Parameter(torch.ones(4)))
    found = compute_curvature(linear, *images, tolerance=1e-5)
    assert found.top_eigenvalue == pytest.approx(expected.top_eigenvalue, rel=1e-4)
    assert found.gradient_norm == pytest.approx(expected.gradient_norm)


def test_block_of_a_network_has_the_top_eigenvalue_of_its_full_hessian(network):
    x, y = torch.rand(4, 1, 6, 6), torch.randint(10, (4,))
    layer = "stages.0.blocks.0.residual.norm2"
    with left_as_it_was(network):
        found = compute_curvature(network, x, y, layer=layer, tolerance=1e-4)
    norm = network.get_submodule(layer)

    def loss(weight, bias):
        values = {f"{layer}.weight": weight, f"{layer}.bias": bias}
        return F.cross_entropy(torch.func.functional_call(network.eval(), values, (x,)), y)

    blocks = torch.autograd.functional.hessian(loss, (norm.weight.detach(), norm.bias.detach()))
    hessian = torch.cat([torch.cat(row, dim=1) for row in blocks])
    expected = torch.linalg.eigvalsh(hessian)[-1].item()
    assert found.top_eigenvalue == pytest.approx(expected, rel=1e-3)


def test_adversarial_loss_is_that_of_images_attacked_once(network):
    x, y = torch.rand(4, 1, 6, 6), torch.randint(10, (4,))
    attack = LinfPGD(0.2, steps=2, start="none")
    method = AdversarialTraining(attack)
    found = compute_curvature(network, x, y, method=method, layer="last")
    expected = compute_curvature(network, attack(network, x, y), y, layer="last")
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.top_eigenvalue == pytest.approx(expected.top_eigenvalue, rel=1e-3)
    assert found.loss > compute_curvature(network, x, y, layer="last").loss


def test_bad_options_are_named(linear, images):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        compute_curvature(linear, *images, batch_size=0)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        compute_curvature(linear, *images, max_steps=0)


def test_convergence_bound_is_equation_11():
    found = ConvergenceBound(
        np.array([0.1, 0.1, 0.2]), initial_loss=2.0, smoothness=4.0, variance=0.5, gradient_norm=3.0
    )
    assert found.descent_term == pytest.approx(2 * 2.0 / 0.4)
    assert found.noise_term == pytest.approx(4 * 0.5 / 0.4 * (0.01 + 0.01 + 0.04))
    assert found.bound == pytest.approx(10.3)
    steps, bound = found.claims()
    assert (steps.verdict, bound.verdict) == (HOLDS, HOLDS)
    assert bound.explanation.startswith("9 against 10 + 0.3; ")


def test_steps_that_are_too_long_and_a_broken_bound_are_said():
    found = ConvergenceBound(
        np.array([0.5]), initial_loss=1.0, smoothness=2.0, variance=0.0, gradient_norm=2.01
    )
    steps, bound = found.claims()
    assert (steps.verdict, bound.verdict) == (FAILS, FAILS)
    assert "the largest is 0.5, 1/L 0.5" in steps.explanation
    assert "the theorem does not speak of such steps" in bound.explanation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_sizes": np.array([])}, "step_sizes must be positive and at least one, got none"),
        (
            {"step_sizes": np.array([0.1, 0.0])},
            "step_sizes must be positive and at least one, got 0",
        ),
        ({"variance": -1.0}, "variance must be finite and at least 0, got -1"),
        ({"smoothness": float("nan")}, "smoothness must be finite and at least 0, got nan"),
        ({"optimal_loss": 3.0}, "optimal_loss must be at most initial_loss 2, got 3"),
    ],
)
def test_impossible_convergence_is_refused(changes, message):
    values = {
        "step_sizes": np.array([0.1]),
        "initial_loss": 2.0,
        "smoothness": 1.0,
        "variance": 1.0,
        "gradient_norm": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        ConvergenceBound(**values | changes)


def test_sequence_bounds_are_equation_12():
    lambdas, slopes, noise = [2.0, 0.5, 3.0], [1.0, 4.0, 5.0], [0.1, 0.2, 0.3]
    smoothness, variances = compute_sequence_bounds(lambdas, slopes, noise)
    for i in range(3):
        assert smoothness[i] == pytest.approx(slopes[i] * np.prod(lambdas[:i]))
        total = sum(
            (np.sqrt(noise[k]) / lambdas[i] * np.prod(lambdas[: k + 1])) ** 2 for k in range(i, 3)
        )
        assert variances[i] == pytest.approx(3 * total)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([1.0], [1.0, 2.0], [1.0]), r"of one length, got shapes \(1,\), \(2,\) and \(1,\)"),
        (([0.0], [1.0], [1.0]), "eigenvalues must be positive, got 0"),
        (([1.0], [1.0], [-1.0]), "variances must be at least 0, got -1"),
    ],
)
def test_impossible_sequence_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        compute_sequence_bounds(*rows)


def test_blocks_in_sequence_are_applied_one_after_the_other(network):
    sequence = put_in_sequence(network, 0).eval()
    x = torch.rand(2, 1, 6, 6)
    network.eval()
    with torch.no_grad():
        weights = network.attention.weights()
        first, second = network.stages[0].blocks
        hidden = second(first(network.stem(x)))
        for stage, row in zip(
            network.stages[1:], [None, weights[1], None, weights[2]], strict=True
        ):
            hidden = stage(hidden) if row is None else stage(hidden, row)
        expected = network.head(hidden.mean(dim=(2, 3)))
        torch.testing.assert_close(sequence(x), expected)
    assert dict(sequence.named_parameters()).keys() == dict(network.named_parameters()).keys()
    assert sequence.stem.weight.data_ptr() != network.stem.weight.data_ptr()


def test_module_is_measured_in_parallel_and_in_sequence(network):
    x, y = torch.rand(4, 1, 6, 6), torch.randint(10, (4,))
    with left_as_it_was(network):
        found = compute_block_smoothness(network, x, y, module=1, batch_size=2)
    layer = "stages.2.blocks.1"
    assert found.blocks == ("stages.2.blocks.0", layer)
    options = {"layer": layer, "batch_size": 2}
    curvature = compute_curvature(network, x, y, **options)
    assert found.smoothness[1] == pytest.approx(curvature.top_eigenvalue)
    sequence = put_in_sequence(network, 1)
    for model, variances in ((network, found.variances), (sequence, found.sequence_variances)):
        variance = compute_gradient_variance(model, x, y, **options).variance
        assert variances[1] == pytest.approx(variance)
    bounds = compute_sequence_bounds(found.eigenvalues, found.smoothness, found.variances)
    np.testing.assert_array_equal(found.smoothness_bounds, bounds[0])
    np.testing.assert_array_equal(found.variance_bounds, bounds[1])
    assert len(found.claims()) == 4


def test_claims_count_the_blocks_and_the_eigenvalues_below_1():
    found = BlockSmoothness(
        blocks=("a", "b"),
        eigenvalues=np.array([0.5, 2.0]),
        smoothness=np.array([1.0, 1.0]),
        variances=np.array([1.0, 1.0]),
        smoothness_bounds=np.array([1.0, 0.5]),
        variance_bounds=np.array([9.0, 9.0]),
        sequence_smoothness=np.array([1.0, 3.0]),
        sequence_variances=np.array([4.0, 0.5]),
    )
    smoothness, variance, smoother, calmer = found.claims()
    assert [claim.verdict for claim in found.claims()] == [FAILS, HOLDS, HOLDS, FAILS]
    assert "so for 1 of 2 blocks (asked: 1 <= 1, 3 <= 0.5)" in smoothness.explanation
    assert "the proof takes the blocks to be matrices" in smoothness.explanation
    assert "1 of 2 eigenvalues are below 1" in smoother.explanation
    assert {claim.source for claim in (variance, calmer)} == {"Thm. 3.5"}


def test_module_that_is_not_there_is_named(network, linear, images):
    with pytest.raises(ValueError, match=r"module must lie in 0\.\.2, got 3"):
        put_in_sequence(network, 3)
    with pytest.raises(ValueError, match="model must be a DS-Net, got a Sequential"):
        compute_block_smoothness(linear, *images)


@pytest.mark.parametrize("count", [0, 5])
def test_number_of_images_that_are_not_there_is_refused(network, count):
    x, y = torch.rand(4, 1, 6, 6), torch.randint(10, (4,))
    with pytest.raises(ValueError, match=rf"num_images must lie in 1\.\.4, got {count}"):
        compute_block_smoothness(network, x, y, num_images=count)


@pytest.mark.slow
def test_run_is_measured_on_its_training_images(tmp_path):
    run = make_run(tmp_path)
    options = {"num_images": 64}
    curvature = compute_run_curvature(run, layer="last", **options)
    natural = compute_run_curvature(run, layer="last", loss="natural", **options)
    assert curvature.loss > natural.loss
    bound = compute_run_convergence_bound(run, num_batches=2, **options)
    values = run.config
    assert bound.step_sizes.size == values.epochs * (144 // 32 + 1)
    assert bound.step_sizes.max() == values.lr
    assert bound.smoothness > 0
    found = compute_run_block_smoothness(run, num_batches=2, **options)
    assert found.blocks == ("stages.0.blocks.0", "stages.0.blocks.1")
