"""Threat models: what a budget means under a norm, as pure functions.

Letters: N images, d pixels each. `x` are the clean images, in [0, 1]; `eps` is the radius of the
ball around each of them. A norm supplies a projection, a random start and a direction of ascent;
the attack's loop is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def project_linf(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    r"""Projects onto the L-infinity ball, then onto valid pixels.

    .. math:: \arg\min_z \|z - x_{adv}\| \;\text{s.t.}\; |z_i - x_i| \le \epsilon, 0 \le z_i \le 1

    Shapes:
        x_adv, x, and the result: (N, ...).
    """
    return x_adv.clamp(x - eps, x + eps).clamp(0, 1)


def project_l2(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    r"""Projects onto the L2 ball, then onto valid pixels.

    .. math:: z = \mathrm{clip}_{[0, 1]}(x + \delta \min(1, \epsilon / \|\delta\|_2)),
       \quad \delta = x_{adv} - x

    Clipping moves each pixel towards `x`, so the result stays in the ball; it is a point of the
    intersection, not always the nearest one.

    Shapes:
        x_adv, x, and the result: (N, ...).
    """
    delta = x_adv - x
    return (x + delta * (eps / _l2_norm(delta)).clamp(max=1)).clamp(0, 1)


def uniform_linf(x: Tensor, eps: float, generator: Generator) -> Tensor:
    """Draws uniformly from the L-infinity ball, then clips to valid pixels."""
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (x + eps * (2 * noise - 1)).clamp(0, 1)


def uniform_l2(x: Tensor, eps: float, generator: Generator) -> Tensor:
    """Draws uniformly from the L2 ball, then clips to valid pixels.

    A Gaussian gives the direction; the radius is eps times the d-th root of a uniform number,
    because volume grows with the d-th power of the radius.
    """
    direction = gaussian_like(x, generator)
    share = torch.rand(len(x), generator=generator, dtype=x.dtype, device=x.device)
    radius = eps * share ** (1 / x[0].numel())
    radius = radius.view(-1, *[1] * (x.ndim - 1))
    return (x + radius * unit_l2(direction)).clamp(0, 1)


def unit_l2(gradient: Tensor) -> Tensor:
    """Scales each sample to Euclidean length 1; zero stays zero."""
    return gradient / _l2_norm(gradient)


def lengths(x: Tensor) -> Tensor:
    """Returns Euclidean lengths, (N, 1, ...), with the bits of pyautoattack's."""
    return (x**2).flatten(1).sum(dim=1).sqrt().view(-1, *[1] * (x.ndim - 1))


def gaussian_like(x: Tensor, generator: Generator) -> Tensor:
    """Draws N(0, 1) in the shape of `x`; the values do not depend on its memory layout."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _l2_norm(delta: Tensor) -> Tensor:
    """Returns norms (N, 1, ...), kept above zero so that one can divide by them."""
    norms: Tensor = torch.linalg.vector_norm(delta, dim=tuple(range(1, delta.ndim)), keepdim=True)
    return norms.clamp(min=torch.finfo(delta.dtype).tiny)


@dataclass(frozen=True)
class Norm:
    """A threat model.

    Attributes:
        name: `Linf` or `L2`.
        project: (x_adv, x, eps) -> the point of the budget that the attack continues from.
        uniform: (x, eps, generator) -> a random point of the budget.
        ascend: Gradient -> the direction of steepest ascent, of norm 1.
        diameter: Number of pixels -> the budget that reaches every image.
        max_eps: The largest budget that makes sense.
    """

    name: str
    project: Callable[[Tensor, Tensor, float], Tensor]
    uniform: Callable[[Tensor, float, Generator], Tensor]
    ascend: Callable[[Tensor], Tensor]
    diameter: Callable[[int], float]
    max_eps: float

    def check_eps(self, eps: float) -> None:
        """Raises ValueError unless `eps` is a finite budget in [0, max_eps]."""
        if not (0 <= eps <= self.max_eps and math.isfinite(eps)):
            if math.isfinite(self.max_eps):
                allowed = f"lie in [0, {self.max_eps:g}], got {eps!r}; divide pixel units by 255"
            else:
                allowed = f"be finite and at least 0, got {eps!r}"
            raise ValueError(f"eps must {allowed}")


LINF = Norm("Linf", project_linf, uniform_linf, torch.sign, lambda num_pixels: 1.0, max_eps=1.0)
L2 = Norm("L2", project_l2, uniform_l2, unit_l2, math.sqrt, max_eps=math.inf)
NORMS = {norm.name: norm for norm in (LINF, L2)}
