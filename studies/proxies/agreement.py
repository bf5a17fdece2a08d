"""How well a cheap ranking agrees with the robust accuracies that training found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nasbench_at.records import Reliability, measure_reliability

__all__ = ["Agreement", "Ceiling", "correct_tau", "measure_agreement", "measure_ceiling"]

Array = NDArray[np.float64]
_RESAMPLES = 500
_SPLITS = 100


@dataclass(frozen=True)
class Agreement:
    """Rank correlations of a cheap score with mean accuracies, each with its 95 % interval.

    Intervals are the percentile bootstrap's, over networks.

    Attributes:
        tau: Kendall's tau-b.
        tau_interval: Its interval.
        corrected: Tau as it would be expected if the accuracies had no noise of seeds, at most 1;
            NaN where their reliability is 0.
        spearman: Spearman's rank correlation.
        spearman_interval: Its interval.
        num_networks: Networks that were ranked.
    """

    tau: float
    tau_interval: tuple[float, float]
    corrected: float
    spearman: float
    spearman_interval: tuple[float, float]
    num_networks: int


@dataclass(frozen=True)
class Ceiling:
    """What no cheap score can be expected to exceed, since the accuracies are noisy themselves.

    Attributes:
        reliability: Of the networks' mean accuracies.
        tau: Tau of a perfect score with these means: the reliability's square root as a tau.
        half_tau: Mean tau between the means of random halves of the seeds; NaN with one seed.
    """

    reliability: Reliability
    tau: float
    half_tau: float


def measure_ceiling(accuracies: Sequence[Sequence[float]], seed: int = 0) -> Ceiling:
    """Measures how well the accuracies of seeds can be foretold at all.

    Args:
        accuracies: Of each network, its runs' accuracies.
        seed: Of the random halves.

    Raises:
        ValueError: As :func:`nasbench_at.records.measure_reliability`.
    """
    from scipy.stats import kendalltau

    reliability = measure_reliability(accuracies)
    generator = np.random.default_rng(seed)
    taus = []
    for _ in range(_SPLITS):
        halves = [_halve(runs, generator) for runs in accuracies]
        taus.append(float(kendalltau(*zip(*halves, strict=True)).statistic))
    return Ceiling(reliability, _tau_of(math.sqrt(reliability.value)), float(np.nanmean(taus)))


def _halve(runs: Sequence[float], generator: np.random.Generator) -> tuple[float, float]:
    shuffled = generator.permutation(runs)
    middle = len(shuffled) // 2
    return float(shuffled[:middle].mean()), float(shuffled[middle:].mean())


def measure_agreement(
    scores: Sequence[Sequence[float]],
    accuracies: Sequence[Sequence[float]],
    reliability: float,
    *,
    seed: int = 0,
) -> Agreement:
    """Correlates scores with accuracies; several rankings of each are correlated in pairs.

    Args:
        scores: Rankings, each a score a network; the correlation is the mean over rankings.
        accuracies: For each ranking the networks' mean accuracies, which share no run with it.
        reliability: Of these accuracies, in [0, 1].
        seed: Of the bootstrap.

    Raises:
        ValueError: If there are fewer than three networks, numbers do not match, or one is NaN.
    """
    from scipy.stats import rankdata

    x, y = np.array(scores, dtype=np.float64), np.array(accuracies, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] < 3:
        raise ValueError(
            "scores and accuracies must be of equally many rankings of at least 3 networks, got "
            f"shapes {x.shape} and {y.shape}"
        )
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("scores and accuracies must be numbers, got NaN among them")
    generator = np.random.default_rng(seed)
    num_networks = x.shape[1]
    drawn = [generator.integers(num_networks, size=num_networks) for _ in range(_RESAMPLES)]
    counts = np.ones((1 + _RESAMPLES, num_networks))
    for row, networks in zip(counts[1:], drawn, strict=True):
        row[:] = np.bincount(networks, minlength=num_networks)
    # By ranks, for a score may be infinite.
    taus, spearmans = _correlate(rankdata(x, axis=1), rankdata(y, axis=1), counts)
    return Agreement(
        tau=float(taus[0]),
        tau_interval=_interval(taus[1:]),
        corrected=correct_tau(float(taus[0]), reliability),
        spearman=float(spearmans[0]),
        spearman_interval=_interval(spearmans[1:]),
        num_networks=num_networks,
    )


def _interval(resampled: Array) -> tuple[float, float]:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def _correlate(scores: Array, accuracies: Array, counts: Array) -> Array:
    """Returns the mean tau-b and the mean Spearman correlation; 0 where a ranking is constant.

    All samples at once, of which scipy takes one at a time.

    Args:
        scores: Shape (rankings, networks), as `accuracies`.
        accuracies: What they are correlated with.
        counts: How often each sample has each network, (samples, networks).

    Returns:
        Shape (2, samples).
    """
    found = []
    for x, y in zip(scores, accuracies, strict=True):
        orders = [np.sign(values[:, None] - values) for values in (x, y)]
        # Mid-ranks within each sample, doubled and with mean 0.
        ranks = [counts @ order.T for order in orders]
        tau = _cosine(lambda a, b: ((counts @ (a * b)) * counts).sum(axis=1), *orders)
        spearman = _cosine(lambda a, b: (counts * a * b).sum(axis=1), *ranks)
        found.append((tau, spearman))
    means: Array = np.mean(found, axis=0)
    return means


def _cosine(product: Callable[[Array, Array], Array], a: Array, b: Array) -> Array:
    """Returns the cosine of the angle between two vectors by an inner product; 0 if one is 0."""
    scale = np.sqrt(product(a, a) * product(b, b))
    return np.divide(product(a, b), scale, out=np.zeros_like(scale), where=scale > 0)


def correct_tau(tau: float, reliability: float) -> float:
    r"""Returns tau corrected for attenuation by the noise of one side.

    .. math:: \tau' = \frac{2}{\pi} \arcsin \frac{\sin(\pi \tau / 2)}{\sqrt{\rho}}

    Tau becomes a correlation by Greiner's relation, which holds for normal variables, is divided by
    the square root of the reliability, and becomes a tau again, at most 1 and at least -1.

    Args:
        tau: Kendall's tau.
        reliability: Of the noisy side, rho, in [0, 1].

    Reference:
        Spearman, "The proof and measurement of association between two things", 1904; Kendall,
        "Rank Correlation Methods", chapter 10.
    """
    if reliability <= 0:
        return math.nan
    correlation = math.sin(math.pi * tau / 2) / math.sqrt(reliability)
    return _tau_of(max(-1.0, min(1.0, correlation)))


def _tau_of(correlation: float) -> float:
    return 2 / math.pi * math.asin(correlation)
