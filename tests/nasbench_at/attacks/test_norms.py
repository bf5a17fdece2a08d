from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasbench_at.attacks.norms import L2, LINF, Norm, gaussian_like, unit_l2

NORMS = [LINF, L2]
both_norms = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm.name)
seeds = st.integers(0, 2**32)
radii = st.floats(0.001, 1)


def distance(norm: Norm, a: Tensor, b: Tensor) -> Tensor:
    order = math.inf if norm is LINF else 2
    return torch.linalg.vector_norm((a - b).flatten(1), order, dim=1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64)


@both_norms
@given(seed=seeds, eps=radii)
@settings(max_examples=30)
def test_projection_keeps_points_of_the_budget(norm: Norm, seed: int, eps: float) -> None:
    x = random_images(seed, 3, 2, 4, 4)
    inside = norm.uniform(x, eps, generator(seed))
    torch.testing.assert_close(norm.project(inside, x, eps), inside, rtol=0, atol=1e-15)


@both_norms
@given(seed=seeds, eps=radii)
@settings(max_examples=30)
def test_projection_puts_exterior_points_on_the_radius(norm: Norm, seed: int, eps: float) -> None:
    x = torch.full((3, 2, 4, 4), 0.5, dtype=torch.float64)
    eps = 0.5 * eps  # so that no pixel leaves [0, 1]
    far = x + 10 * gaussian_like(x, generator(seed))
    reached = distance(norm, norm.project(far, x, eps), x)
    torch.testing.assert_close(reached, torch.full_like(reached, eps))


@both_norms
@given(seed=seeds, eps=radii)
@settings(max_examples=30)
def test_projection_is_idempotent_and_within_the_budget(norm: Norm, seed: int, eps: float) -> None:
    x = random_images(seed, 3, 2, 4, 4)
    once = norm.project(x + gaussian_like(x, generator(seed)), x, eps)
    torch.testing.assert_close(norm.project(once, x, eps), once, rtol=0, atol=1e-15)
    assert distance(norm, once, x).max() <= eps + 1e-12
    assert once.min() >= 0
    assert once.max() <= 1


@both_norms
@given(seed=seeds, eps=st.floats(0.01, 0.5))
@settings(max_examples=20)
def test_projection_is_the_nearest_point_in_two_dimensions(
    norm: Norm, seed: int, eps: float
) -> None:
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    point = x + gaussian_like(x, generator(seed))
    side = torch.linspace(-eps, eps, 201, dtype=torch.float64)
    grid = x + torch.cartesian_prod(side, side)
    budget = grid[distance(norm, grid, x) <= eps]
    nearest = distance(L2, budget, point).min()
    found = distance(L2, norm.project(point, x, eps), point).item()
    assert nearest - eps / 50 <= found <= nearest + 1e-12


@both_norms
def test_uniform_start_fills_the_ball(norm: Norm) -> None:
    x = torch.full((4000, 1, 1, 2), 0.5, dtype=torch.float64)
    drawn = distance(norm, norm.uniform(x, 0.4, generator(0)), x)
    assert drawn.max() <= 0.4
    # In two dimensions a ball of half the radius holds a quarter of the volume.
    assert (drawn < 0.2).double().mean().item() == pytest.approx(0.25, abs=0.03)


@both_norms
def test_budget_zero_is_the_image_itself(norm: Norm) -> None:
    x = random_images(0, 2, 1, 3, 3)
    assert torch.equal(norm.project(x, x, 0), x)
    assert torch.equal(norm.project(x + 1, x, 0), x)
    assert torch.equal(norm.uniform(x, 0, generator(0)), x)


@both_norms
def test_diameter_reaches_every_image(norm: Norm) -> None:
    black, white = torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 5, 5)
    assert torch.equal(norm.project(white, black, norm.diameter(25)), white)


def test_unit_gradient_of_zero_is_zero() -> None:
    gradient = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0)])
    expected = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.5)])
    torch.testing.assert_close(unit_l2(gradient), expected)


def test_random_numbers_do_not_depend_on_the_memory_layout() -> None:
    x = torch.rand(2, 3, 4, 4)
    last = x.contiguous(memory_format=torch.channels_last)
    for norm in NORMS:
        assert torch.equal(
            norm.uniform(x, 0.1, generator(1)), norm.uniform(last, 0.1, generator(1))
        )


@pytest.mark.parametrize("eps", [8, -0.1, math.nan, math.inf])
def test_linf_refuses_a_budget_outside_the_unit_interval(eps: float) -> None:
    with pytest.raises(ValueError, match=rf"eps must lie in \[0, 1\], got {eps!r}; divide pixel"):
        LINF.check_eps(eps)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_l2_refuses_a_negative_or_infinite_budget(eps: float) -> None:
    with pytest.raises(ValueError, match=f"eps must be finite and at least 0, got {eps!r}"):
        L2.check_eps(eps)
