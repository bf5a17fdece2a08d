"""Losses on a grid of points around the weights, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from nasbench_at.runtime.atomic_files import write_atomically

__all__ = [
    "Landscape",
    "check_same_landscape",
    "load_landscape",
    "save_landscape",
]


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
            settings and its batch size), and in words what moves (``rules``).
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


def require_complete(landscape: Landscape) -> None:
    """Raises a ValueError if points of a landscape are missing."""
    if landscape.num_missing:
        raise ValueError(
            f"landscape {landscape.name!r} lacks {landscape.num_missing} of "
            f"{landscape.losses.size} points; compute them first"
        )


def check_same_landscape(found: Landscape, wanted: Landscape, what: str) -> None:
    """Raises a ValueError naming the first thing in which two landscapes' points differ."""
    for key in ("alphas", "betas"):
        mine, its = getattr(wanted, key), getattr(found, key)
        if not np.array_equal(mine, its):
            raise ValueError(
                f"{what} has {len(its)} {key} from {its[0]:g} to {its[-1]:g}, not {len(mine)} from "
                f"{mine[0]:g} to {mine[-1]:g}"
            )
    for key in sorted(wanted.settings):
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
