"""How far a ranking of networks can be trusted: what of its variance is not that of the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Reliability", "measure_reliability"]


@dataclass(frozen=True)
class Reliability:
    """Variance between and within networks, and what follows from it for their ranking.

    The reliability of means is the share of their variance that networks account for: 0 where all
    of it is the seeds', 1 where the seeds make no difference. Two independent sets of means are
    expected to correlate as much, and no predictor of the means can be expected to correlate with
    them by more than its square root.

    Attributes:
        num_networks: Number of networks, n.
        num_runs: Number of their runs.
        num_seeds: Runs a network, k; where networks have different numbers, the weighted mean that
            the analysis of variance takes.
        between: Variance of the networks' true accuracies, at least 0.
        within: Variance of runs of one network.
        interval: 95 % interval of the reliability of means over ``num_seeds``; it is exact where
            accuracies are normal and networks have equally many runs.

    Reference:
        Shrout and Fleiss, "Intraclass correlations", Psychological Bulletin 1979: ICC(1, k).
    """

    num_networks: int
    num_runs: int
    num_seeds: float
    between: float
    within: float
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        """Reliability of the means as they were measured, in [0, 1]."""
        return self.of_means(self.num_seeds)

    def of_means(self, num_seeds: float) -> float:
        """Returns the reliability that means over so many seeds would have, in [0, 1].

        It is the formula of Spearman and Brown. Where all runs are equal it is 0.
        """
        total = self.between + self.within / num_seeds
        return self.between / total if total > 0 else 0.0

    def seeds_for(self, target: float) -> int | None:
        """Returns how many seeds give a reliability; None if networks do not differ.

        Args:
            target: The reliability, in (0, 1).

        Raises:
            ValueError: If the target is out of range.
        """
        if not 0 < target < 1:
            raise ValueError(f"target must lie in (0, 1), got {target!r}")
        if self.between == 0:
            return None
        seeds = self.within / self.between * target / (1 - target)
        return max(1, math.ceil(round(seeds, 9)))


def measure_reliability(accuracies: Sequence[Sequence[float]]) -> Reliability:
    """Splits the variance of accuracies into that between networks and that within them.

    Args:
        accuracies: Of each network, its runs' accuracies under the same conditions.

    Raises:
        ValueError: If there are fewer than two networks, or one has fewer than two runs.
    """
    # Imported here: every command loads this module, and few need it.
    import numpy as np
    from scipy.special import fdtri

    if len(accuracies) < 2:
        raise ValueError(f"reliability needs at least 2 networks, got {len(accuracies)}")
    counts = np.array([len(runs) for runs in accuracies])
    if counts.min() < 2:
        raise ValueError(
            f"reliability needs at least 2 seeds of each network, got {counts.min()} of one"
        )
    means = np.array([np.mean(runs) for runs in accuracies])
    num_networks, num_runs = len(counts), int(counts.sum())
    free = num_networks - 1, num_runs - num_networks
    grand = counts @ means / num_runs
    between_square = float(counts @ (means - grand) ** 2) / free[0]
    within_square = sum(len(runs) * float(np.var(runs)) for runs in accuracies) / free[1]
    num_seeds = (num_runs - float((counts**2).sum()) / num_runs) / free[0]
    if between_square == 0:
        interval = 0.0, 0.0
    else:
        noise = within_square / between_square
        low = 1 - noise * float(fdtri(*free, 0.975))
        high = 1 - noise / float(fdtri(*reversed(free), 0.975))
        interval = max(0.0, low), max(0.0, high)
    return Reliability(
        num_networks=num_networks,
        num_runs=num_runs,
        num_seeds=num_seeds,
        between=max(0.0, (between_square - within_square) / num_seeds),
        within=within_square,
        interval=interval,
    )
