"""Common corruptions: what happens to images without an adversary, at five severities.

The corruptions and their strengths are those of CIFAR-10-C, whose code is for 32x32 RGB images. For
images of any size and number of channels this departs from it: the blur's width grows with images
larger than 32 pixels; brightness adds to the largest channel, which is HSV's value where there are
three; results are not rounded to 8 bits. A shift is not among theirs; its lengths are ours.

Reference:
    Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
    perturbations", ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nasbench_at.evaluation.options import CORRUPTIONS, SEVERITIES
from nasbench_at.runtime.seeding import make_generator

__all__ = ["CorruptionSuite", "corrupt"]

_Corrupt: TypeAlias = Callable[[Tensor, float, Sequence[Generator]], Tensor]

_TRUNCATE = 4.0
"""Standard deviations at which the blur's kernel ends, as in scikit-image."""
_SIZE = 32
"""Pixels of the images that the blur's widths and the shift's lengths are stated for."""


def corrupt(
    x: Tensor, name: str, severity: int, *, seed: int = 0, indices: Sequence[int] | None = None
) -> Tensor:
    """Returns corrupted images.

    What is random depends on the seed, the corruption and the image's index alone: neither on the
    severity nor on the batch it lies in, the device or the number of processes.

    Args:
        x: Images in [0, 1].
        name: One of ``gaussian-noise``, ``shot-noise``, ``blur``, ``contrast``, ``brightness``,
            ``shift``.
        severity: 1 to 5.
        seed: Seed of what is random.
        indices: The images' places in their data set; 0, 1, ... by default.

    Shapes:
        x and the result: (N, C, H, W).

    Raises:
        ValueError: If there is no such corruption or severity, or indices are not one an image.
    """
    if name not in _CORRUPTIONS:
        raise ValueError(f"corruption must be one of {', '.join(CORRUPTIONS)}, got {name!r}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    places = range(len(x)) if indices is None else indices
    if len(places) != len(x):
        raise ValueError(f"indices must be one an image, got {len(places)} for {len(x)} images")
    change, amounts = _CORRUPTIONS[name]
    generators = [make_generator(seed, "corruption", name, int(place)) for place in places]
    return change(x, amounts[severity - 1], generators).clamp(0, 1)


@dataclass(frozen=True)
class CorruptionSuite:
    """Corruptions to be evaluated under, each at some severities.

    Attributes:
        names: Some of those of :func:`corrupt`.
        severities: Some of 1 to 5.
        has_mean: Whether the mean over all of them is asked for.
    """

    names: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    has_mean: bool = True


def is_random(name: str) -> bool:
    """Whether a corruption draws random numbers."""
    return name in ("gaussian-noise", "shot-noise", "shift")


def _add_gaussian_noise(x: Tensor, scale: float, generators: Sequence[Generator]) -> Tensor:
    noise = torch.stack([torch.randn(x.shape[1:], generator=each) for each in generators])
    return x + scale * noise.to(x)


def _add_shot_noise(x: Tensor, photons: float, generators: Sequence[Generator]) -> Tensor:
    """Counts photons, of which a white pixel emits so many on average."""
    rates = x.cpu().contiguous() * photons  # the order of the draws is that of the memory
    pairs = zip(rates, generators, strict=True)
    counts = torch.stack([torch.poisson(rate, generator=each) for rate, each in pairs])
    return counts.to(x) / photons


def _blur(x: Tensor, sigma: float, generators: Sequence[Generator]) -> Tensor:
    """Averages with the weights of a Gaussian; beyond the edge lies the edge's pixel."""
    sigma = sigma * max(1.0, min(x.shape[2:]) / _SIZE)
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x.contiguous(), (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel, groups=x.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=x.shape[1])


def _lower_contrast(x: Tensor, share: float, generators: Sequence[Generator]) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (x - mean) * share + mean


def _brighten(x: Tensor, amount: float, generators: Sequence[Generator]) -> Tensor:
    """Adds to HSV's value; hue and saturation stay, and black becomes grey."""
    value = x.amax(dim=1, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, x * (raised / value.clamp(min=torch.finfo(x.dtype).tiny)), raised)


def _shift(x: Tensor, length: float, generators: Sequence[Generator]) -> Tensor:
    """Moves left, right, up or down; parts of a pixel linearly, the edge's pixel following."""
    directions = [int(torch.randint(4, (), generator=each)) for each in generators]
    moved = torch.stack([_move(x, direction, length) for direction in range(4)])
    chosen = torch.tensor(directions, device=x.device)
    return moved[chosen, torch.arange(len(x), device=x.device)]


def _move(x: Tensor, direction: int, length: float) -> Tensor:
    dim, sign = 2 + direction // 2, 1 - 2 * (direction % 2)
    size = x.shape[dim]
    distance = length * size / _SIZE
    whole = math.floor(distance)
    places = torch.arange(size, device=x.device)
    near, far = (
        x.index_select(dim, (places - sign * steps).clamp(0, size - 1))
        for steps in (whole, whole + 1)
    )
    return torch.lerp(near, far, distance - whole)


_CORRUPTIONS: Mapping[str, tuple[_Corrupt, tuple[float, ...]]] = {
    "gaussian-noise": (_add_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot-noise": (_add_shot_noise, (500, 250, 100, 75, 50)),
    "blur": (_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (_lower_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (_brighten, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "shift": (_shift, (1, 2, 3, 4, 5)),
}
"""What each does, and its amounts by severity: those of CIFAR-10-C, and a shift's in 32nds of the
image's size.
"""
