"""Where a search looks: block sets, depth, width, initial weights, weight decay, under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from nasbench_at.config.architecture import AttentionInit

__all__ = ["Granularity", "Screening", "SearchSpace"]

Granularity = Literal["network", "stage", "module"]


@dataclass(frozen=True)
class Screening:
    """A cheap first rung: a short run of its own with a weaker attack, before the real one.

    Attributes:
        epochs: Its epochs.
        attack_steps: Steps of its training attack.
        keep: A trial goes on if its robust accuracy is among this part of all screened so far.
    """

    epochs: int
    attack_steps: int
    keep: float = 0.5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.attack_steps < 1:
            raise ValueError(
                "screening needs at least 1 epoch and 1 attack step, got "
                f"{self.epochs} and {self.attack_steps}"
            )
        if not 0 < self.keep < 1:
            raise ValueError(f"screening must keep a part in (0, 1), got {self.keep}")


@dataclass(frozen=True)
class SearchSpace:
    """What a search may choose; a value that is None is the base configuration's.

    Attributes:
        blocks: The pool; a boolean per block decides whether it is in the set.
        per: One set for the ``network``, one a ``stage`` or one a ``module``.
        num_modules: Lowest and highest depth.
        init_channels: Lowest and highest width of the first stage.
        widen_factors: Factors to choose from.
        attention_inits: Initial distributions to choose from.
        weight_decay: Lowest and highest weight decay, sampled by its logarithm.
        match_parameters: Choose the width that comes closest to this number of parameters.
        max_parameters: Networks above it are not trained: a constraint.
        max_seconds_per_step: Networks slower than this are infeasible: a constraint.
        screening: A cheap first rung.
    """

    blocks: tuple[str, ...]
    per: Granularity = "network"
    num_modules: tuple[int, int] | None = None
    init_channels: tuple[int, int] | None = None
    widen_factors: tuple[float, ...] | None = None
    attention_inits: tuple[AttentionInit, ...] | None = None
    weight_decay: tuple[float, float] | None = None
    match_parameters: int | None = None
    max_parameters: int | None = None
    max_seconds_per_step: float | None = None
    screening: Screening | None = None

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("a space needs at least one block to choose from")
        if len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"blocks of a space must be different, got {', '.join(self.blocks)}")
        if self.per not in get_args(Granularity):
            allowed = ", ".join(get_args(Granularity))
            raise ValueError(f"per must be one of {allowed}, got {self.per!r}")
        for name, lowest in (("num_modules", 3), ("init_channels", 1), ("weight_decay", 0)):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and lowest <= bounds[0] <= bounds[1]):
                raise ValueError(
                    f"{name} of a space must be two numbers in order, at least {lowest}, got "
                    f"{bounds}"
                )
        if self.weight_decay is not None and self.weight_decay[0] <= 0:
            raise ValueError(
                f"weight_decay is sampled by its logarithm and must be positive, got "
                f"{self.weight_decay}"
            )
        if self.init_channels is not None and self.match_parameters is not None:
            raise ValueError(
                "init_channels and match_parameters both choose the width; give one of them"
            )
        for name in ("match_parameters", "max_parameters", "max_seconds_per_step"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")

    @property
    def num_sets(self) -> int:
        """Number of non-empty block sets for one choice."""
        return (1 << len(self.blocks)) - 1

    def size(self, num_modules: int) -> int | None:
        """Returns how many configurations the space holds; None if it is not finite.

        Args:
            num_modules: Depth where the space does not choose it.
        """
        if self.weight_decay is not None:
            return None
        low, high = self.num_modules or (num_modules, num_modules)
        depths = range(low, high + 1)
        total = sum(int(self.num_sets ** self._num_choices(depth)) for depth in depths)
        if self.init_channels is not None:
            total *= self.init_channels[1] - self.init_channels[0] + 1
        for choices in (self.widen_factors, self.attention_inits):
            total *= len(choices or (None,))
        return total

    def _num_choices(self, num_modules: int) -> int:
        match self.per:
            case "network":
                return 1
            case "stage":
                return 3
            case "module":
                return num_modules

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Restores a space from plain data, whose tuples have become lists."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            value = data[item.name]
            values[item.name] = tuple(value) if isinstance(value, list) else value
        if values["screening"] is not None:
            values["screening"] = Screening(**values["screening"])
        return cls(**values)
