"""Loss landscapes as the page shows them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["LandscapeData"]

_MAX_SIDE = 201  # the page's size and the renderer's speed bound the grid


@dataclass(frozen=True)
class LandscapeData:
    """Losses on a plane through a network's weights, f(α, β) = L(W + α δ + β η).

    Attributes:
        name: What stands above it, such as the run.
        alphas: Coordinates along δ, increasing, shape ``(num_alphas,)``.
        betas: Coordinates along η, increasing, shape ``(num_betas,)``.
        losses: Losses, shape ``(num_alphas, num_betas)``; those that are not finite are holes.

    Raises:
        ValueError: If the shapes do not fit, or no loss is finite.

    Reference:
        Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018; Fig. 7 of the
        paper.
    """

    name: str
    alphas: ArrayLike
    betas: ArrayLike
    losses: ArrayLike

    def __post_init__(self) -> None:
        for field in ("alphas", "betas", "losses"):
            values = np.array(getattr(self, field), dtype=np.float64)
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        for field in ("alphas", "betas"):
            axis = np.asarray(getattr(self, field))
            if axis.ndim != 1 or not 2 <= len(axis) <= _MAX_SIDE or not (np.diff(axis) > 0).all():
                raise ValueError(
                    f"{field} of landscape {self.name!r} must be 2 to {_MAX_SIDE} increasing "
                    f"numbers, got shape {axis.shape}"
                )
        losses = np.asarray(self.losses)
        expected = (len(np.asarray(self.alphas)), len(np.asarray(self.betas)))
        if losses.shape != expected:
            raise ValueError(
                f"losses of landscape {self.name!r} must have shape {expected}, got {losses.shape}"
            )
        if not np.isfinite(losses).any():
            raise ValueError(f"landscape {self.name!r} has no finite loss")

    def to_json(self) -> dict[str, Any]:
        """Returns what the page's renderer reads, losses to five digits, holes as None."""
        losses = np.asarray(self.losses)
        return {
            "name": self.name,
            "alphas": [float(value) for value in np.asarray(self.alphas)],
            "betas": [float(value) for value in np.asarray(self.betas)],
            "losses": [
                [float(f"{value:.5g}") if math.isfinite(value) else None for value in row]
                for row in losses
            ],
        }

    @property
    def summary(self) -> str:
        """Says in words what the picture shows, for those who do not see it."""
        losses = np.asarray(self.losses)
        alphas, betas = np.asarray(self.alphas), np.asarray(self.betas)
        centre = losses[np.abs(alphas).argmin(), np.abs(betas).argmin()]
        known = losses[np.isfinite(losses)]
        return (
            f"Loss over \N{GREEK SMALL LETTER ALPHA} from {alphas[0]:g} to {alphas[-1]:g} and "
            f"\N{GREEK SMALL LETTER BETA} from {betas[0]:g} to {betas[-1]:g}: lowest "
            f"{known.min():.4g}, at the centre {centre:.4g}, highest {known.max():.4g}."
        )
