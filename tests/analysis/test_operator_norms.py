from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from analysis.operator_norms import (
    compute_operator_norm,
    compute_output_shape,
    compute_top_eigenvalue,
)
from blocks.layers import conv1x1
from tests.analysis.runs import left_as_it_was


def unrolled(layers, shape):
    """The matrix of affine layers, a column an input, by putting in unit vectors."""
    function = nn.Sequential(*layers).eval().double()
    size = math.prod(shape)
    with torch.no_grad():
        images = function(torch.eye(size, dtype=torch.float64).view(size, *shape))
        constant = function(torch.zeros(1, *shape, dtype=torch.float64))
    return (images - constant).flatten(1).T.numpy()


def norm_of(layers, shape):
    return scipy.linalg.svdvals(unrolled(layers, shape))[0]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), (3, 6, 6)),
        (nn.Conv2d(3, 5, 3), (3, 6, 5)),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 7, 6)),
        (nn.Conv2d(4, 4, 5, groups=4, padding=2), (4, 6, 6)),
        (nn.Conv2d(4, 6, 3, groups=2, dilation=2, padding=2), (4, 6, 6)),
        (nn.Conv2d(2, 3, (3, 1), padding=(1, 0), padding_mode="circular"), (2, 6, 4)),
        (conv1x1(3, 5, stride=2), (3, 6, 6)),
        (nn.Linear(12, 7), (12,)),
        (nn.AvgPool2d(3, stride=2, padding=1), (2, 6, 6)),
    ],
    ids=str,
)
def test_norm_is_the_largest_singular_value_of_the_unrolled_matrix(layer, shape):
    with left_as_it_was(layer):
        norm = compute_operator_norm(layer, shape)
    assert norm == pytest.approx(norm_of([layer], shape), rel=1e-6)


def test_norm_depends_on_the_resolution_and_is_not_that_of_the_reshaped_kernel():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    nn.init.ones_(conv.weight)
    # Nine pixels, two channels: 18 on an endless image of a constant; a pixel alone sees 1 weight.
    assert compute_operator_norm(conv, (2, 1, 1)) == pytest.approx(2)
    assert 17 < compute_operator_norm(conv, (2, 16, 16)) < 18
    assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(6)


def make_norm(channels):
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 2)
    return norm


def test_norm_layer_is_its_largest_scale():
    norm = make_norm(5)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs().max().item()
    assert compute_operator_norm(norm, (5, 3, 3)) == pytest.approx(scale, rel=1e-6)


def test_convolution_and_norm_together_have_the_norm_of_their_product():
    conv, norm = nn.Conv2d(3, 4, 3, padding=1), make_norm(4)
    together = compute_operator_norm([conv, norm], (3, 5, 5))
    assert together == pytest.approx(norm_of([conv, norm], (3, 5, 5)), rel=1e-6)
    apart = compute_operator_norm(conv, (3, 5, 5)) * compute_operator_norm(norm, (4, 5, 5))
    assert together < apart


def test_zero_layer_has_norm_zero():
    linear = nn.Linear(3, 2)
    nn.init.zeros_(linear.weight)
    assert compute_operator_norm(linear, (3,)) == 0


def test_output_shape_follows_stride_and_padding():
    assert compute_output_shape(nn.Conv2d(3, 5, 3, stride=2, padding=1), (3, 7, 8)) == (5, 4, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.ReLU(), (3,), r"layer ReLU\(\) is not affine: it has no operator norm"),
        (nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 3), "is not affine"),
        (nn.Conv2d(3, 5, 3), (4, 8, 8), r"layers take no input of shape \(4, 8, 8\)"),
    ],
)
def test_layer_without_an_operator_norm_is_named(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        compute_operator_norm(layer, shape)


def symmetric(eigenvalues):
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(eigenvalues),) * 2))
    return torch.from_numpy(basis * eigenvalues @ basis.T)


def test_largest_eigenvalue_is_found_where_a_negative_one_has_a_larger_magnitude():
    matrix = symmetric([*np.linspace(-9, 1, 40), 2.5])
    top = compute_top_eigenvalue(lambda v: matrix @ v, torch.randn(41).double())
    assert top.value == pytest.approx(2.5)
    assert top.converged
    assert top.error <= 1e-8 * 2.5


def test_early_stop_says_how_far_off_it_may_be():
    eigenvalues = np.linspace(0, 1, 200)
    matrix = symmetric(eigenvalues)
    top = compute_top_eigenvalue(lambda v: matrix @ v, torch.randn(200).double(), max_steps=5)
    assert (top.num_steps, top.converged) == (5, False)
    assert np.abs(eigenvalues - top.value).min() <= top.error
    assert top.value < 1


@pytest.mark.parametrize(
    ("start", "max_steps", "message"),
    [(torch.zeros(3), 5, "positive finite length, got 0.0"), (torch.ones(3), 0, "got 0")],
)
def test_impossible_iteration_is_refused(start, max_steps, message):
    with pytest.raises(ValueError, match=message):
        compute_top_eigenvalue(lambda v: v, start, max_steps=max_steps)
