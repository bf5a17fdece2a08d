"""Local Lipschitz constants, measured: the spectral norm of the Jacobian at given points.

At a point it is the constant of the function's best linear approximation there, so a Lipschitz
constant of the function on any set around the point is at least as large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from nasbench_at.attacks import LINF
from nasbench_at.attacks.norms import gaussian_like, unit_l2
from nasbench_at.runtime.seeding import make_generator

__all__ = ["ascend_local_constants", "compute_local_constants", "record_inputs"]

Function = Callable[[Tensor], Tensor]


def compute_local_constants(
    function: Function,
    points: Tensor,
    *,
    num_steps: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Measures the Jacobian's spectral norm at each point by power iteration, from below.

    Args:
        function: Maps each sample by itself, as a network in eval mode does; twice differentiable
            by autograd.
        points: Shape ``(N, ...)``.
        num_steps: Products with the Jacobian and its transpose.
        batch_size: Points at a time.
        seed: Of the start.

    Returns:
        The norms, shape ``(N,)``.

    Raises:
        ValueError: If ``num_steps`` or ``batch_size`` is below 1.
    """

    def measure(part: Tensor) -> Tensor:
        return _power_iteration(function, part, num_steps=num_steps, seed=seed)[0]

    return _in_batches(measure, points, batch_size)


def _in_batches(measure: Function, points: Tensor, batch_size: int) -> Tensor:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    starts = range(0, len(points), batch_size)
    return torch.cat([measure(points[start : start + batch_size]) for start in starts])


def _power_iteration(
    function: Function, points: Tensor, *, num_steps: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the norms (N,), and the singular vectors: in the input's shape, in the output's."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    generator = make_generator(seed, "local constants", device=points.device)
    right = unit_l2(gaussian_like(points, generator))
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        output = function(leaf)
        # Linear in this, so that its derivative is the product with the Jacobian.
        dual = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, leaf, dual, create_graph=True)
    for _ in range(num_steps):
        (image,) = torch.autograd.grad(pulled, dual, right, retain_graph=True)
        (pulled_back,) = torch.autograd.grad(output, leaf, image, retain_graph=True)
        right = unit_l2(pulled_back)
    (image,) = torch.autograd.grad(pulled, dual, right)
    return image.flatten(1).norm(dim=1), right, unit_l2(image)


def ascend_local_constants(
    function: Function,
    images: Tensor,
    *,
    eps: float,
    num_ascents: int = 5,
    num_steps: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    """Seeks the largest local constant around each image, in its L-infinity ball.

    Ascent by the sign of the gradient of uᵀJ(x)v, u and v being J's top singular vectors. Where
    the function is piecewise linear, as with ReLU, that gradient is zero; there a step goes in a
    random direction, and the ascent is a random search.

    Args:
        function: As in :func:`compute_local_constants`.
        images: In [0, 1], shape ``(N, ...)``.
        eps: Radius of the balls, in [0, 1].
        num_ascents: Steps; 0 looks at the images alone.
        num_steps: As in :func:`compute_local_constants`.
        batch_size: As there.
        seed: Of starts and random directions.

    Returns:
        The largest norm seen at each image and on the way from it, shape ``(N,)``.

    Raises:
        ValueError: If ``eps`` or a count is outside its range.
    """
    LINF.check_eps(eps)
    if num_ascents < 0:
        raise ValueError(f"num_ascents must be at least 0, got {num_ascents}")
    num_ascents = num_ascents if eps > 0 else 0

    def measure(part: Tensor) -> Tensor:
        return _ascend(
            function, part, eps=eps, num_ascents=num_ascents, num_steps=num_steps, seed=seed
        )

    return _in_batches(measure, images.detach(), batch_size)


def _ascend(
    function: Function, images: Tensor, *, eps: float, num_ascents: int, num_steps: int, seed: int
) -> Tensor:
    generator = make_generator(seed, "local ascent", device=images.device)
    step_size = 2.5 * eps / max(num_ascents, 1)
    points = images
    norms, right, left = _power_iteration(function, points, num_steps=num_steps, seed=seed)
    best = norms
    for _ in range(num_ascents):
        direction = _norm_gradient(function, points, right, left).sign()
        noise = gaussian_like(points, generator).sign()
        is_flat = (direction == 0).flatten(1).all(dim=1).view(-1, *[1] * (points.ndim - 1))
        direction = torch.where(is_flat, noise, direction)
        points = LINF.project(points + step_size * direction, images, eps)
        norms, right, left = _power_iteration(function, points, num_steps=num_steps, seed=seed)
        best = torch.maximum(best, norms)
    return best


def _norm_gradient(function: Function, points: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """Returns the gradient of each sample's uᵀJ(x)v, in the shape of the points."""
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        (pulled,) = torch.autograd.grad(function(leaf), leaf, left, create_graph=True)
        stretch = (pulled * right).sum()
        if not stretch.requires_grad:
            return torch.zeros_like(points)
        gradient: Tensor = torch.autograd.grad(stretch, leaf, materialize_grads=True)[0]
    return gradient


def record_inputs(
    model: nn.Module, modules: Iterable[nn.Module], images: Tensor
) -> dict[nn.Module, Tensor]:
    """Runs a model and returns what entered some of its modules, in their last call."""
    inputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[module] = arguments[0]

    handles = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return inputs
