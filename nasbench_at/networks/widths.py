"""Widths at which architectures meet a number of parameters."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import cache

from nasbench_at.config.allowed_values import check_value
from nasbench_at.config.architecture import Architecture, NumParameters
from nasbench_at.networks.graph import build_graph, count_planned_parameters

__all__ = ["match_parameters"]


def match_parameters(architecture: Architecture, target: int) -> Architecture:
    """Finds the width at which an architecture comes closest to a number of parameters.

    Args:
        architecture: All but its ``init_channels`` is kept.
        target: Number of parameters, attention logits not counted.

    Returns:
        The architecture with the width closest to the target; of two equally close, the narrower.

    Raises:
        ValueError: If the target is no whole number above 0, or even the narrowest network has
            more than twice as many parameters.

    Reference:
        Sec. 4.5 of the paper keeps the parameters level this way, without saying which widths.
    """
    target = check_value("target", NumParameters, target)

    @cache
    def count(width: int) -> int:
        return count_planned_parameters(replace(architecture, init_channels=width))

    narrowest = _narrowest_width(architecture)
    if count(narrowest) > 2 * target:
        raise ValueError(
            f"no width meets {target} parameters: the narrowest network, {narrowest} channels "
            f"wide, has {count(narrowest)}"
        )
    widest = narrowest + 1
    while count(widest) < target:
        widest *= 2
    width = bisect_left(range(widest), target, lo=narrowest, key=count)
    best = min(
        (w for w in (width - 1, width) if w >= narrowest), key=lambda w: abs(count(w) - target)
    )
    return replace(architecture, init_channels=best)


def _narrowest_width(architecture: Architecture) -> int:
    """The smallest width at which every block can be built (some need several channels)."""
    for width in range(1, 65):
        try:
            build_graph(replace(architecture, init_channels=width))
        except ValueError as error:
            reason = error
        else:
            return width
    raise reason
