"""How large an effect is over seeds, how sure that is, and what these seeds could have shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from analysis.claims.claim import Verdict
from nasbench_at.records import mean_interval

__all__ = [
    "Effect",
    "independent_effect",
    "jackknife_effect",
    "judge_equivalence",
    "judge_gain",
    "paired_effect",
]

POWER = 0.8
"""With which probability the smallest detectable effect is found."""
_LEVEL = 0.975
"""Quantile of two-sided 5 %."""


@dataclass(frozen=True)
class Effect:
    """A difference over seeds, with what is known of its noise.

    Attributes:
        value: The estimate.
        interval: Its 95 % interval, by Student's t distribution.
        degrees: Degrees of freedom of that distribution.
        num_runs: Runs behind it.
        design: ``paired``, ``independent`` or ``jackknife``.
    """

    value: float
    interval: tuple[float, float]
    degrees: float
    num_runs: int
    design: str

    @property
    def standard_error(self) -> float:
        """Standard error of the estimate, from the interval."""
        low, high = self.interval
        return (high - low) / 2 / float(stats.t.ppf(_LEVEL, self.degrees))

    @property
    def smallest_detectable(self) -> float:
        """The true effect that a two-sided t test at 5 % finds with probability 0.8.

        It supposes that the noise is what was estimated, and takes that estimate's own noise into
        account by the noncentral t distribution.
        """
        return _noncentrality(self.degrees) * self.standard_error


def _noncentrality(degrees: float) -> float:
    """By how many standard errors an effect must differ from 0 to be found with power 0.8."""
    critical = float(stats.t.ppf(_LEVEL, degrees))

    def missing_power(shift: float) -> float:
        # The other tail, of less than 2.5 %, is not found where it is next to nothing.
        tails = stats.nct.sf(critical, degrees, [shift, -shift])
        return float(np.nansum(tails)) - POWER

    return float(optimize.brentq(missing_power, 0.0, 3.0 * critical))


def paired_effect(differences: ArrayLike, num_runs: int) -> Effect:
    """Returns the mean of differences, one a seed.

    Args:
        differences: Shape ``(seeds,)``.
        num_runs: Runs behind them.

    Raises:
        ValueError: If there are fewer than two.
    """
    values = np.asarray(differences, dtype=np.float64)
    _require_seeds(len(values))
    low, high = mean_interval(values)
    return Effect(
        float(values.mean()), (float(low), float(high)), len(values) - 1, num_runs, "paired"
    )


def independent_effect(first: ArrayLike, second: ArrayLike) -> Effect:
    """Returns the difference of two means whose runs are not paired, by Welch's t test.

    Args:
        first: Values of one group.
        second: Values of the other, which are subtracted.

    Raises:
        ValueError: If a group has fewer than two.
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    _require_seeds(min(len(one), len(other)))
    value, num_runs = float(one.mean() - other.mean()), len(one) + len(other)
    if not one.var() + other.var():
        return Effect(value, (value, value), num_runs - 2, num_runs, "independent")
    test = stats.ttest_ind(one, other, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return Effect(value, (float(low), float(high)), float(test.df), num_runs, "independent")


def jackknife_effect(
    estimate: Callable[[NDArray[np.int64]], float], num_seeds: int, num_runs: int
) -> Effect:
    """Returns an estimate that is no mean, with the interval that leaving out each seed gives.

    Args:
        estimate: The estimate from the seeds of these indices.
        num_seeds: How many there are.
        num_runs: Runs behind it.

    Raises:
        ValueError: If there are fewer than three seeds, or the estimate is not a number.

    Reference:
        Tukey's pseudo-values, with Student's t distribution.
    """
    if num_seeds < 3:
        raise ValueError(f"leaving out one seed needs at least 3, got {num_seeds}")
    seeds = np.arange(num_seeds)
    whole = estimate(seeds)
    parts = np.array([estimate(np.delete(seeds, seed)) for seed in seeds])
    if not (math.isfinite(whole) and np.isfinite(parts).all()):
        raise ValueError("seeds differ more than networks do")
    low, high = mean_interval(num_seeds * whole - (num_seeds - 1) * parts)
    half = float(high - low) / 2
    interval = whole - half, whole + half
    return Effect(whole, interval, num_seeds - 1, num_runs, "jackknife")


def _require_seeds(number: int) -> None:
    if number < 2:
        raise ValueError(f"an interval over seeds needs at least 2, got {number}")


def judge_gain(effect: Effect, margin: float) -> Verdict:
    """Judges the claim that an effect is above 0.

    It holds if the interval lies above 0, and does not if it lies below the margin: if there is an
    effect, it is too small to matter.
    """
    low, high = effect.interval
    if low > 0:
        return "holds here"
    return "does not hold here" if high < margin else "cannot be told"


def judge_equivalence(effect: Effect, margin: float) -> Verdict:
    """Judges the claim that something matters little.

    It holds if the interval lies within the margin on both sides of 0, which is stricter than two
    one-sided tests at 5 %; it does not if the interval lies wholly beyond.
    """
    low, high = effect.interval
    if -margin < low and high < margin:
        return "holds here"
    return "does not hold here" if low > margin or high < -margin else "cannot be told"
