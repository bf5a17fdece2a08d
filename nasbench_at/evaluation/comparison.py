"""Paired comparison: do two networks differ, on the very images both were evaluated on?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasbench_at.records import Benchmark, Record, conditions_of, differences, read_record
from nasbench_at.records.outcomes import outcomes_path, read_outcomes
from nasbench_at.records.places import find_table

__all__ = ["PairedComparison", "compare_outcomes", "compare_runs"]


@dataclass(frozen=True)
class PairedComparison:
    """Two networks under one attack, image by image.

    Attributes:
        num_samples: Images that both were evaluated on.
        num_both: Images that both got right.
        num_first_only: Images that the first alone got right.
        num_second_only: Images that the second alone got right.
    """

    num_samples: int
    num_both: int
    num_first_only: int
    num_second_only: int

    @property
    def accuracies(self) -> tuple[float, float]:
        """Both networks' accuracies in [0, 1]."""
        first, second = self.num_first_only, self.num_second_only
        return (
            (self.num_both + first) / self.num_samples,
            (self.num_both + second) / self.num_samples,
        )

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second."""
        return (self.num_first_only - self.num_second_only) / self.num_samples

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference.

        Reference:
            Agresti and Min, "Simple improved confidence intervals for comparing matched
            proportions", Statistics in Medicine 2005: Wald's with half an image added to each of
            the four cells.
        """
        z = 1.959963984540054  # 97.5 % quantile of the normal distribution
        total = self.num_samples + 2
        first, second = (
            (count + 0.5) / total for count in (self.num_first_only, self.num_second_only)
        )
        centre = first - second
        spread = z * math.sqrt((first + second - centre**2) / total)
        return max(-1.0, centre - spread), min(1.0, centre + spread)

    @property
    def p_value(self) -> float:
        """McNemar's exact p value, two-sided: how likely so uneven a split is if they are equal.

        Reference:
            McNemar, "Note on the sampling error of the difference between correlated proportions or
            percentages", Psychometrika 1947; the binomial distribution in place of its limit.
        """
        from scipy.stats import binomtest  # takes a second to import

        num_discordant = self.num_first_only + self.num_second_only
        if num_discordant == 0:
            return 1.0
        return float(binomtest(self.num_first_only, num_discordant).pvalue)


def compare_outcomes(first: ArrayLike, second: ArrayLike) -> PairedComparison:
    """Compares two rows of outcomes, bool ``(N,)``, of the same images in the same order.

    Raises:
        ValueError: If they are not equally long, or empty.
    """
    one, other = np.asarray(first, dtype=np.bool_), np.asarray(second, dtype=np.bool_)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(
            f"outcomes must be equally many and at least one, got {one.shape} and {other.shape}"
        )
    return PairedComparison(
        num_samples=len(one),
        num_both=int((one & other).sum()),
        num_first_only=int((one & ~other).sum()),
        num_second_only=int((~one & other).sum()),
    )


def compare_runs(first: str | Path, second: str | Path, *, attack: str = "pgd") -> PairedComparison:
    """Compares two evaluated runs, or records of users' models, under one attack.

    Args:
        first: A run's folder, a record's file, or a run of a table, such as ``digits:RUN-ID``.
        second: Likewise.
        attack: Name of a row, such as ``natural``, ``pgd``, ``aa`` or ``worst_case``.

    Raises:
        ValueError: If one was not evaluated by the attack, or images, settings or seeds differ; the
            message names what does.
    """
    opened = [_open(place) for place in (first, second)]
    records = [record for record, _ in opened]
    for record in records:
        if attack not in record.results:
            shared = [name for name in records[0].results if name in records[1].results]
            raise ValueError(
                f"run {record.run_id!r} was not evaluated by {attack!r}; attacks that both were "
                f"evaluated by, for --attack: {', '.join(shared) or 'none'}"
            )
    one, other = (record.result(attack) for record in records)
    different = differences(conditions_of(one), conditions_of(other))
    if one.seed != other.seed:
        different.append(f"seed ({one.seed} and {other.seed})")
    if different:
        raise ValueError(
            f"{str(first)!r} and {str(second)!r} cannot be compared by {attack!r}; they differ in "
            + ", ".join(different)
        )
    return compare_outcomes(*(outcomes_of(attack) for _, outcomes_of in opened))


def _open(place: str | Path) -> tuple[Record, Callable[[str], NDArray[np.bool_]]]:
    """Returns a record, and what gives the outcomes of its main row of an attack."""
    if find_table(place) is not None:
        runs = Benchmark.load(place)
        if len(runs) != 1:
            raise ValueError(
                f"{str(place)!r} has {len(runs)} runs; name one of them, as {place!s}:RUN-ID"
            )
        return runs[0], partial(runs.outcomes_of, runs[0])
    path = Path(place)
    file = path / "record.json" if path.is_dir() else path
    record = read_record(file)
    return record, partial(_outcomes_beside, file, record)


def _outcomes_beside(file: Path, record: Record, attack: str) -> NDArray[np.bool_]:
    outcomes, key = read_outcomes(file), record.result(attack).key
    if key not in outcomes:
        raise ValueError(f"outcomes {str(outcomes_path(file))!r} have no row {key!r}")
    return outcomes[key]
