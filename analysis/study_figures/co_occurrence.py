"""Which blocks are found together in the best networks, more or less often than by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.comparability import (
    NAMED_KEYS,
    check_evaluated_alike,
    check_trained_alike,
    ds_net_of,
    group_by,
    identity_without,
    prefer_recipe_weight_decay,
)
from analysis.errors import MissingRunsError
from analysis.study_figures.estimates import describe_setting, ds_nets_of
from analysis.style import create_figure
from nasbench_at.config.architecture import Architecture
from nasbench_at.records import Record

__all__ = ["CoOccurrence", "compute_co_occurrence", "draw_co_occurrence"]

_FIGURE = "block co-occurrence"


@dataclass(frozen=True)
class CoOccurrence:
    """How often blocks share a module; on the diagonal, how often a block occurs.

    Attributes:
        blocks: Names of the rows and columns.
        observed: Networks among the best in which the pair shares a module, shape
            ``(num_blocks, num_blocks)``; block sets that differ between modules count in parts.
        expected: The same if the best were drawn from all networks by chance.
        num_best: Networks among the best.
        num_networks: All networks.
        setting: How they were trained and attacked.
    """

    blocks: tuple[str, ...]
    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    num_best: int
    num_networks: int
    setting: str

    @property
    def ratio(self) -> NDArray[np.float64]:
        """Observed by expected; NaN for a pair that no network has."""
        with np.errstate(invalid="ignore"):
            return self.observed / self.expected


def compute_co_occurrence(
    records: Sequence[Record], attack: str = "pgd", *, quantile: float = 0.25
) -> CoOccurrence:
    """Counts pairs of blocks among the most robust networks.

    Runs that differ in their seeds only are one network, of their mean accuracy. A search may have
    chosen a weight decay for each network; of one with several, the recipe's counts.

    Args:
        records: Runs of DS-Nets of several block sets, trained alike but for their weight decay,
            and evaluated alike.
        attack: By which networks are ranked.
        quantile: The best part of the networks, in (0, 1); rounded up to whole networks.

    Raises:
        MissingRunsError: If there are not two block sets.
        ValueError: If ``quantile`` is out of range, or the runs were trained or evaluated
            differently.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie in (0, 1), got {quantile}")
    by_network = group_by(
        ds_nets_of(records, attack, _FIGURE),
        lambda r: identity_without(r, ("seed", "weight_decay")),
    )
    runs = [run for group in by_network.values() for run in prefer_recipe_weight_decay(group)]
    check_trained_alike(runs, NAMED_KEYS | {"weight_decay"}, _FIGURE)
    check_evaluated_alike(runs, [attack], _FIGURE)
    networks = list(group_by(runs, lambda r: identity_without(r, ("seed",))).values())
    blocks = tuple(sorted(frozenset().union(*(ds_net_of(run).all_blocks for run in runs))))
    pairs = np.stack([_pairs_of(ds_net_of(group[0]), blocks) for group in networks])
    if len({row.tobytes() for row in pairs}) < 2:
        raise MissingRunsError(f"{_FIGURE} needs DS-Nets of two block sets or more")
    accuracy = np.array([mean(r.accuracy(attack) for r in group) for group in networks])
    num_best = math.ceil(quantile * len(networks))
    best = np.argsort(-accuracy, kind="stable")[:num_best]
    return CoOccurrence(
        blocks=blocks,
        observed=pairs[best].sum(axis=0),
        expected=num_best * pairs.mean(axis=0),
        num_best=num_best,
        num_networks=len(networks),
        setting=describe_setting(runs[0], attack),
    )


def _pairs_of(network: Architecture, blocks: Sequence[str]) -> NDArray[np.float64]:
    """Share of a network's modules that hold both of two blocks; a block twice is no pair."""
    has = np.array(
        [[block in module for block in blocks] for module in network.blocks], dtype=np.float64
    )
    shares: NDArray[np.float64] = has.T @ has / len(has)
    return shares


def draw_co_occurrence(pairs: CoOccurrence) -> Figure:
    """Draws the ratios to chance as a matrix, with the counts behind them."""
    size = max(3.6, 1.6 + 0.62 * len(pairs.blocks))
    figure = create_figure(size + 0.8, size)
    axes = figure.add_subplot()
    image = axes.imshow(pairs.ratio, cmap="PuOr_r", vmin=0, vmax=2)
    for i, j in np.ndindex(pairs.ratio.shape):
        if pairs.expected[i, j] > 0:
            is_dark = abs(pairs.ratio[i, j] - 1) > 0.7
            text = f"{pairs.ratio[i, j]:.2f}\n{pairs.observed[i, j]:.3g}/{pairs.expected[i, j]:.3g}"
            color = "white" if is_dark else "#222222"
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=color)
    ticks = range(len(pairs.blocks))
    axes.set_xticks(ticks, pairs.blocks, rotation=45, ha="right", fontsize=7.5)
    axes.set_yticks(ticks, pairs.blocks, fontsize=7.5)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="as often as by chance", shrink=0.8)
    axes.set_title(
        f"the {pairs.num_best} best of {pairs.num_networks} networks, found/expected\n"
        f"{pairs.setting}",
        fontsize=8,
    )
    return figure
