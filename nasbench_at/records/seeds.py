"""What a few seeds say: intervals of a mean, and of the difference of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from nasbench_at.records.conditions import require_equal_conditions
from nasbench_at.records.record import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SeedAccuracies", "SeedComparison", "collect_seeds", "compare_seeds", "mean_interval"]


def mean_interval(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the 95 % interval of the mean over the first axis, by Student's t distribution.

    Args:
        values: Shape ``(n, ...)``, independent along the first axis.

    Returns:
        Lower and upper ends, shape ``(...)``; NaN where n is below 2.
    """
    # Imported here: every command loads this module, and few need an interval.
    import numpy as np
    from scipy.special import stdtrit

    samples = np.asarray(values, dtype=np.float64)
    count = len(samples)
    if count < 2:
        unknown = np.full(samples.shape[1:], np.nan)
        return unknown, unknown
    mean = samples.mean(axis=0)
    spread = stdtrit(count - 1, 0.975) * samples.std(axis=0, ddof=1) / math.sqrt(count)
    return mean - spread, mean + spread


@dataclass(frozen=True)
class SeedAccuracies:
    """One configuration under one attack, seed by seed.

    Attributes:
        attack: Name of the attack.
        seeds: Seeds of the runs.
        accuracies: Their accuracies in [0, 1], one a seed.
    """

    attack: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the seeds, in [0, 1]."""
        return fmean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean, by Student's t distribution.

        Raises:
            ValueError: If there are fewer than two seeds.
        """
        if len(self.seeds) < 2:
            raise ValueError(
                f"an interval of {self.attack!r} over seeds needs at least 2, got {len(self.seeds)}"
            )
        low, high = mean_interval(self.accuracies)
        return float(low), float(high)

    def draw(self, generator: np.random.Generator) -> float:
        """Returns the accuracy of one seed at random, all equally likely, in [0, 1]."""
        return self.accuracies[int(generator.integers(len(self.accuracies)))]


@dataclass(frozen=True)
class SeedComparison:
    """Two configurations under one attack, seed by seed.

    Attributes:
        attack: Name of the attack.
        seeds: The seeds that both were run with.
        first: Accuracies of the first in [0, 1], one a seed.
        second: Accuracies of the second.
    """

    attack: str
    seeds: tuple[int, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def differences(self) -> NDArray[np.float64]:
        """Accuracy of the first minus that of the second, one a seed."""
        import numpy as np

        return np.subtract(self.first, self.second)

    @property
    def difference(self) -> float:
        """Mean of the differences."""
        return float(self.differences.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean difference: that of the paired t test; NaN for one seed."""
        low, high = mean_interval(self.differences)
        return float(low), float(high)


def collect_seeds(records: Sequence[Record], attack: str = "pgd") -> SeedAccuracies:
    """Returns the accuracies of one configuration over its seeds.

    Args:
        records: Its runs, one a seed.
        attack: Name of a row, such as ``natural``, ``pgd`` or ``aa``.

    Raises:
        ValueError: If none was evaluated by the attack, there are several runs of a seed, or the
            images or the attack's settings differ between any two.
    """
    runs = _by_seed("queried", records, attack)
    if not runs:
        known = dict.fromkeys(name for record in records for name in record.results)
        raise ValueError(
            f"none of {len(records)} runs was evaluated by {attack!r}; there is "
            f"{', '.join(known) or 'nothing'}"
        )
    require_equal_conditions((each, each.result(attack)) for each in runs.values())
    return SeedAccuracies(
        attack=attack,
        seeds=tuple(sorted(runs)),
        accuracies=tuple(runs[seed].accuracy(attack) for seed in sorted(runs)),
    )


def compare_seeds(
    first: Sequence[Record], second: Sequence[Record], attack: str = "pgd"
) -> SeedComparison:
    """Compares two configurations over the seeds that both were evaluated with.

    Args:
        first: Runs of one configuration, one a seed.
        second: Runs of another.
        attack: Name of a row, such as ``natural``, ``pgd`` or ``aa``.

    Raises:
        ValueError: If a group has several runs of a seed, no seed is common, or the images or the
            attack's settings differ between any two of these runs.
    """
    one, other = _by_seed("first", first, attack), _by_seed("second", second, attack)
    common = sorted(one.keys() & other.keys())
    if not common:
        raise ValueError(
            f"no seed was evaluated by {attack!r} in both groups, got seeds "
            f"{sorted(one)} and {sorted(other)}"
        )
    pairs = [(one[seed], other[seed]) for seed in common]
    require_equal_conditions((each, each.result(attack)) for pair in pairs for each in pair)
    return SeedComparison(
        attack=attack,
        seeds=tuple(common),
        first=tuple(one[seed].accuracy(attack) for seed in common),
        second=tuple(other[seed].accuracy(attack) for seed in common),
    )


def _by_seed(which: str, records: Sequence[Record], attack: str) -> dict[int, Record]:
    found: dict[int, Record] = {}
    for record in records:
        if not record.was_evaluated_by(attack):
            continue
        seed = record.config.get("seed")
        if seed is None:
            raise ValueError(f"run {record.run_id!r} of the {which} group has no seed")
        known = found.setdefault(seed, record)
        if known is not record:
            raise ValueError(
                f"the {which} group must be one configuration, got two runs of seed {seed}: "
                f"{known.run_id!r} and {record.run_id!r}"
            )
    return found
