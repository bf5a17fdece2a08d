"""Widths at which architectures meet a number of parameters."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Annotated

from nasbench_at.config.allowed_values import Range, check_value
from nasbench_at.config.architecture import Architecture, NumParameters
from nasbench_at.networks.graph import count_planned_parameters

__all__ = ["match_parameters"]

Tolerance = Annotated[float, Range("[0, 1]")]


def match_parameters(
    architecture: Architecture, target: int, tolerance: float | None = None
) -> Architecture:
    """Finds the width at which an architecture comes closest to a number of parameters.

    Args:
        architecture: All but its ``init_channels`` is kept, and with a tolerance its
            ``widen_factor``.
        target: Number of parameters, attention logits not counted.
        tolerance: By how much the parameters may differ, as a share of the target. Of a small
            network one channel more is many parameters; where they differ by more,
            ``widen_factor`` makes up for it, changed as little as may be. None takes the closest
            ``init_channels`` as it is.

    Returns:
        The architecture with the width closest to the target; of two equally close, the narrower.

    Raises:
        ValueError: If the target is no whole number above 0, even the narrowest network has more
            than twice as many parameters, or no width lies within the tolerance.

    Reference:
        Sec. 4.5 of the paper keeps the parameters level this way, without saying which widths.
    """
    target = check_value("target", NumParameters, target)
    tolerance = check_value("tolerance", Tolerance | None, tolerance)

    @cache
    def count(width: int) -> int:
        return count_planned_parameters(replace(architecture, init_channels=width))

    narrowest = _next_buildable(count, 1)
    if count(narrowest) > 2 * target:
        raise ValueError(
            f"no width meets {target} parameters: the narrowest network, {narrowest} channels "
            f"wide, has {count(narrowest)}"
        )
    width = _closest(count, target, narrowest)
    if tolerance is None or abs(count(width) - target) <= tolerance * target:
        return replace(architecture, init_channels=width)
    nearby = range(max(narrowest, width - 2), width + 3)
    found = []
    for first in nearby:
        with suppress(ValueError):  # a block that cannot be built with so many channels
            found.append(_widen(replace(architecture, init_channels=first), target))
    found.sort(key=lambda network: abs(network.widen_factor - architecture.widen_factor))
    numbers = [count_planned_parameters(network) for network in found]
    for network, number in zip(found, numbers, strict=True):
        if abs(number - target) <= tolerance * target:
            return network
    closest = min((count(width), *numbers), key=lambda number: abs(number - target))
    raise ValueError(
        f"no width comes within {tolerance:.2%} of {target} parameters: the closest has {closest}"
    )


def _widen(architecture: Architecture, target: int) -> Architecture:
    """Returns the network whose last stage, and the second half as wide, meet a number best."""
    first = architecture.init_channels

    def widened(last: int) -> Architecture:
        return replace(architecture, widen_factor=last / (2 * first))

    return widened(
        _closest(lambda last: count_planned_parameters(widened(last)), target, 2 * first)
    )


def _closest(count: Callable[[int], int], target: int, narrowest: int) -> int:
    """Returns the width, at least the narrowest, whose growing number comes closest.

    Widths at which a block cannot be built count as the next one at which all can.
    """

    def count_next(width: int) -> int:
        return count(_next_buildable(count, width))

    widest = narrowest + 1
    while count_next(widest) < target:
        widest *= 2
    width = bisect_left(range(widest), target, lo=narrowest, key=count_next)
    # The width before it has another number, so it is its own and can be built.
    nearest = [width - 1] if width > narrowest else []
    nearest.append(_next_buildable(count, width))
    return min(nearest, key=lambda w: abs(count(w) - target))


def _next_buildable(count: Callable[[int], int], first: int) -> int:
    """The smallest width from one on at which every block can be built.

    Some blocks need several channels, or a multiple of some number.
    """
    for width in range(first, first + 64):
        try:
            count(width)
        except ValueError as error:
            reason = error
        else:
            return width
    raise reason
