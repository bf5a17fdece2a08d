"""Losses on a grid of points around the weights: their file, their sharpness, several in one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from nasbench_at.runtime.atomic_files import write_atomically

__all__ = [
    "Landscape",
    "Sharpness",
    "check_same_landscape",
    "load_landscape",
    "measure_sharpness",
    "merge_landscapes",
    "save_landscape",
]


@dataclass(frozen=True)
class Sharpness:
    """How fast the loss rises around the weights.

    Attributes:
        radius: Distance from the weights within which the loss was looked at, the directions being
            orthonormal axes: sqrt(α² + β²) is at most this.
        num_points: Grid points within that distance, the weights' own not counted.
        mean_rise: Mean over these points of L(W* + αδ + βη) − L(W*).
        max_rise: The largest of these differences.
        curvatures: Along each direction, the second difference over one grid step h,
            (L(h) − 2 L(0) + L(−h)) / h².
    """

    radius: float
    num_points: int
    mean_rise: float
    max_rise: float
    curvatures: tuple[float, ...]


@dataclass(frozen=True)
class Landscape:
    """The mean loss f(α, β) = L(W* + αδ + βη) on a grid around the weights W*.

    Attributes:
        name: The model's.
        alphas: Coordinates along δ in order, shape ``(A,)``; the middle one is 0.
        betas: Along η, shape ``(B,)``; 0 alone if the landscape is a line.
        losses: Shape ``(A, B)``; NaN where not computed. A loss that is no number counts as
            infinite.
        settings: What else decides the losses: hashes of ``weights`` and ``images``,
            ``num_images``, ``seed``, ``loss``, ``attack`` (None for natural images; else its
            settings, whether it was repeated at each point, its batch size), ``move_vectors``, and
            in words what moves (``rules``).
    """

    name: str
    alphas: NDArray[np.float64]
    betas: NDArray[np.float64]
    losses: NDArray[np.float64]
    settings: Mapping[str, Any]

    @property
    def is_line(self) -> bool:
        """Whether there is one direction."""
        return len(self.betas) == 1

    @property
    def num_missing(self) -> int:
        """Points not computed yet."""
        return int(np.isnan(self.losses).sum())

    @property
    def center_loss(self) -> float:
        """L(W*)."""
        return float(self.losses[len(self.alphas) // 2, len(self.betas) // 2])

    @property
    def sharpness(self) -> Sharpness:
        """Of the largest circle in the grid, see :func:`measure_sharpness`."""
        return measure_sharpness(self)


def measure_sharpness(landscape: Landscape, radius: float | None = None) -> Sharpness:
    """Measures how fast the loss rises around the weights.

    Args:
        landscape: All its points computed.
        radius: Distance to look at, at least one grid step; by default the grid's half width, so
            that of a square the corners are left out.

    Raises:
        ValueError: If points are missing, or none but the weights' own lies within the radius.
    """
    require_complete(landscape)
    radius = float(landscape.alphas[-1]) if radius is None else radius
    distances = np.hypot(landscape.alphas[:, None], landscape.betas[None, :])
    # A point on the circle counts, whatever the rounding of its coordinates.
    near = (distances > 0) & (distances <= radius * (1 + 1e-9))
    if not near.any():
        raise ValueError(
            f"radius must be at least one grid step, {landscape.alphas[-1] - landscape.alphas[-2]}"
            f", got {radius}"
        )
    rises = landscape.losses[near] - landscape.center_loss
    row, column = len(landscape.alphas) // 2, len(landscape.betas) // 2
    sections = [(landscape.alphas, landscape.losses[:, column])]
    if not landscape.is_line:
        sections.append((landscape.betas, landscape.losses[row]))
    return Sharpness(
        radius=radius,
        num_points=int(near.sum()),
        mean_rise=float(rises.mean()),
        max_rise=float(rises.max()),
        curvatures=tuple(_curvature(*section) for section in sections),
    )


def _curvature(positions: NDArray[np.float64], losses: NDArray[np.float64]) -> float:
    middle = len(positions) // 2
    before, here, after = losses[middle - 1 : middle + 2]
    return float((after - 2 * here + before) / positions[middle + 1] ** 2)


def require_complete(landscape: Landscape) -> None:
    """Raises a ValueError if points of a landscape are missing."""
    if landscape.num_missing:
        raise ValueError(
            f"landscape {landscape.name!r} lacks {landscape.num_missing} of "
            f"{landscape.losses.size} points; compute or merge them first"
        )


def merge_landscapes(parts: Sequence[Landscape]) -> Landscape:
    """Puts the parts of one landscape together that several processes computed.

    Args:
        parts: Landscapes of one model and grid, each with other points computed.

    Returns:
        The landscape with every point that a part has; where several have it, the first one's.

    Raises:
        ValueError: If there are no parts, or they are not of one landscape.
    """
    if not parts:
        raise ValueError("there must be at least one part to merge, got none")
    losses = parts[0].losses.copy()
    for part in parts[1:]:
        check_same_landscape(part, parts[0], f"part {part.name!r}")
        losses = np.where(np.isnan(losses), part.losses, losses)
    return replace(parts[0], losses=losses)


def check_same_landscape(found: Landscape, wanted: Landscape, what: str) -> None:
    """Raises a ValueError naming the first thing in which two landscapes' points differ."""
    for key in ("alphas", "betas"):
        mine, its = getattr(wanted, key), getattr(found, key)
        if not np.array_equal(mine, its):
            raise ValueError(
                f"{what} has {len(its)} {key} from {its[0]:g} to {its[-1]:g}, not {len(mine)} from "
                f"{mine[0]:g} to {mine[-1]:g}"
            )
    for key in sorted(wanted.settings.keys() | found.settings.keys()):
        mine, its = wanted.settings.get(key), found.settings.get(key)
        if mine != its:
            raise ValueError(f"{what} is of other {key}: {its}, not {mine}")


def save_landscape(path: str | Path, landscape: Landscape) -> None:
    """Writes a landscape, finished or not, as safetensors with its settings in the header.

    Raises:
        ValueError: If the file cannot be written.
    """
    header = {"name": landscape.name, "settings": landscape.settings}
    tensors = {key: getattr(landscape, key) for key in ("alphas", "betas", "losses")}
    metadata = {"landscape": json.dumps(header, sort_keys=True)}
    try:
        write_atomically(Path(path), safetensors.numpy.save(tensors, metadata))
    except OSError as error:
        raise ValueError(f"cannot write landscape {str(path)!r}: {error.strerror}") from None


def load_landscape(path: str | Path) -> Landscape:
    """Reads what :func:`save_landscape` wrote.

    Raises:
        ValueError: If the file cannot be read or holds no landscape.
    """
    try:
        with safetensors.safe_open(Path(path), framework="numpy") as file:
            header = json.loads(file.metadata()["landscape"])
            tensors = {key: file.get_tensor(key) for key in ("alphas", "betas", "losses")}
        return Landscape(name=header["name"], settings=header["settings"], **tensors)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read landscape {str(path)!r}: {reason}") from None
