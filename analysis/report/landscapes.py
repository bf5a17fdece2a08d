"""Loss landscapes as the page shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.errors import UnsuitableRunsError

if TYPE_CHECKING:  # which imports torch
    from analysis.landscape import Landscape

__all__ = ["describe_landscape", "landscape_to_json"]


def landscape_to_json(landscape: Landscape) -> dict[str, Any]:
    """Returns what the page's renderer reads, losses to five digits, those not finite as None."""
    return {
        "name": landscape.name,
        "alphas": landscape.alphas.tolist(),
        "betas": landscape.betas.tolist(),
        "losses": [
            [float(f"{value:.5g}") if math.isfinite(value) else None for value in row]
            for row in landscape.losses
        ],
    }


def describe_landscape(landscape: Landscape) -> str:
    """Says in words what the picture shows, for those who do not see it.

    Raises:
        UnsuitableRunsError: If no loss is finite.
    """
    known = landscape.losses[np.isfinite(landscape.losses)]
    if not known.size:
        raise UnsuitableRunsError(f"landscape {landscape.name!r} has no finite loss")
    alphas, betas = landscape.alphas, landscape.betas
    return (
        f"Loss over \N{GREEK SMALL LETTER ALPHA} from {alphas[0]:g} to {alphas[-1]:g} and "
        f"\N{GREEK SMALL LETTER BETA} from {betas[0]:g} to {betas[-1]:g}: lowest "
        f"{known.min():.4g}, at the centre {landscape.center_loss:.4g}, highest {known.max():.4g}."
    )
