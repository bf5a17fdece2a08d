"""What each block contributes to a set of blocks, from a table over all of its subsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import factorial
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from analysis.comparability import TECHNICAL_KEYS, architecture_by_hash, ds_net_of
from analysis.errors import MissingRunsError
from analysis.study_figures.block_families import (
    WIDTH_AND_BLOCKS,
    BlockFamily,
    BlockSet,
    collect_families,
)
from analysis.study_figures.estimates import Estimate, describe_setting, estimate_values
from analysis.study_figures.points import describe_spread, draw_points
from analysis.study_figures.rank_correlation import spearman
from analysis.style import LEGEND_BELOW, create_figure, style_axes
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import metric_label
from nasbench_at.records.naming.variants import name_variants

__all__ = [
    "BlockImportance",
    "compute_importance",
    "draw_importance",
    "leave_one_out",
    "shapley_values",
]

_FIGURE = "the importance of blocks"
_NUM_RESAMPLES = 2_000
_MIN_SEEDS_OF_CORRELATION = 3
Weights = Mapping[str, Sequence[Sequence[float]]]


@dataclass(frozen=True)
class BlockImportance:
    """The blocks of one set in one way of training, seed by seed.

    Both measures are linear in the accuracies, so that each seed has one of its own, the mean over
    seeds is that of the mean accuracies, and what subsets of one seed have in common is in the
    spread.

    Attributes:
        blocks: Names of the columns.
        seeds: The seeds with which every subset was trained.
        shapley: Shapley values, shape ``(seeds, blocks)``; a row adds up to the full set's accuracy
            minus the baseline.
        leave_one_out: Accuracy of the full set minus that without the block, retrained, same shape.
        weights: Mean learned weight over the modules of the full set's networks, same shape; None
            where some are unknown.
        baseline: Value of the empty set: chance, one by the number of classes.
        correlation: Spearman's, of mean weights and mean Shapley values, over the blocks; NaN
            without weights.
        interval: Its 95 % interval: by Student's t distribution and a jackknife that leaves out
            half of the seeds; the blocks are fixed. NaN of fewer than three seeds.
        num_samples: Test images.
        run_ids: The runs.
        attack: Name of the attack.
        setting: How the networks were trained and attacked.
    """

    blocks: tuple[str, ...]
    seeds: tuple[int, ...]
    shapley: NDArray[np.float64]
    leave_one_out: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    baseline: float
    correlation: float
    interval: tuple[float, float]
    num_samples: int
    run_ids: tuple[str, ...]
    attack: str
    setting: str


def shapley_values(
    values: Mapping[BlockSet, ArrayLike], baseline: float
) -> dict[str, NDArray[np.float64]]:
    """Computes exact Shapley values: a player's mean contribution over all orders of arrival.

    Args:
        values: By subset of the players, its value; every subset but the empty one. Arrays are of
            as many games.
        baseline: Value of the empty set.

    Returns:
        By player in alphabetical order; they add up to the full set's value minus the baseline.

    Raises:
        ValueError: If a subset is missing.

    Reference:
        Shapley, "A value for n-person games", 1953.
    """
    players = _require_all_subsets(values)
    count = len(players)
    known = {subset: np.asarray(value, np.float64) for subset, value in values.items()}
    known[frozenset()] = np.full_like(known[frozenset(players)], baseline)
    found = {}
    for player in players:
        total = np.zeros_like(known[frozenset()])
        for subset, value in known.items():
            if player not in subset:
                size = len(subset)
                orders = factorial(size) * factorial(count - size - 1) / factorial(count)
                total = total + orders * (known[subset | {player}] - value)
        found[player] = total
    return found


def leave_one_out(values: Mapping[BlockSet, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """Computes what the full set loses without each player.

    Args:
        values: As in :func:`shapley_values`.

    Returns:
        By player in alphabetical order.

    Raises:
        ValueError: If a subset is missing.
    """
    players = _require_all_subsets(values)
    full = frozenset(players)
    return {player: np.subtract(values[full], values[full - {player}]) for player in players}


def _require_all_subsets(values: Mapping[BlockSet, ArrayLike]) -> list[str]:
    players = sorted(frozenset().union(*values))
    if len(players) < 2 or len(values) + 1 != 1 << len(players) or frozenset() in values:
        raise ValueError(
            f"there must be every subset but the empty one of at least two blocks, got "
            f"{len(values)} of {len(players)} blocks"
        )
    return players


def compute_importance(
    records: Sequence[Record], attack: str = "pgd", *, weights: Weights | None = None
) -> tuple[BlockImportance, ...]:
    """Computes the importance of each block where all subsets of a set were trained alike.

    Args:
        records: Runs.
        attack: Whose accuracy is the value of a subset.
        weights: By run, the learned attention weights of its selected epoch, a row a module.

    Returns:
        One for each way of training and set.

    Raises:
        MissingRunsError: If there is no set with all of its subsets, trained with one seed at
            least, or chance accuracy is unknown.
        IncomparableRunsError: If runs were evaluated differently.
    """
    families = collect_families(records, attack, _FIGURE)
    complete = [family for family in families if family.is_complete and family.seeds]
    if not complete:
        raise MissingRunsError(_describe_missing(families))
    settings = _describe(complete, attack)
    return tuple(
        _measure(family, setting, weights or {})
        for family, setting in zip(complete, settings, strict=True)
    )


def _describe_missing(families: Sequence[BlockFamily]) -> str:
    needs = (
        f"{_FIGURE} needs a block set and all of its subsets, trained alike at equal parameters "
        "(within 10 %) with a common seed"
    )
    if not families:
        return f"{needs}; there is no set of which a subset was trained alike"
    best = max(families, key=lambda family: len(family.runs) / (1 << len(family.blocks)))
    return (
        f"{needs}; of {', '.join(best.blocks)} there are {len(best.runs)} of "
        f"{(1 << len(best.blocks)) - 1} sets, {len(best.seeds)} seeds of all of them"
    )


def _describe(families: Sequence[BlockFamily], attack: str) -> list[str]:
    """The way of training of each, as far as it differs."""
    examples = [next(iter(family.runs[frozenset(family.blocks)].values())) for family in families]
    texts = [describe_setting(record, attack) for record in examples]
    if len(families) == 1:
        return texts
    ignored = TECHNICAL_KEYS | WIDTH_AND_BLOCKS - {"blocks", "block_options"}
    configs = [{k: v for k, v in r.config.items() if k not in ignored} for r in examples]
    return [f"{text}: {name}" for text, name in zip(texts, name_variants(configs), strict=True)]


def _measure(family: BlockFamily, setting: str, known: Weights) -> BlockImportance:
    full = family.runs[frozenset(family.blocks)]
    accuracies = family.accuracies(family.attack)
    example = full[family.seeds[0]]
    baseline = _chance(example)
    shapley = np.stack([*shapley_values(accuracies, baseline).values()], axis=1)
    weights = _mean_weights([full[seed] for seed in family.seeds], known)
    correlation, interval = _correlate(weights, shapley)
    return BlockImportance(
        blocks=family.blocks,
        seeds=tuple(family.seeds),
        shapley=shapley,
        leave_one_out=np.stack([*leave_one_out(accuracies).values()], axis=1),
        weights=weights,
        baseline=baseline,
        correlation=correlation,
        interval=interval,
        num_samples=example.results[family.attack].num_samples,
        run_ids=tuple(record.run_id for record in family.records),
        attack=family.attack,
        setting=setting,
    )


def _chance(record: Record) -> float:
    architecture = architecture_by_hash(record)
    if architecture is None:
        raise MissingRunsError(
            f"{_FIGURE} starts from chance accuracy, and the number of classes of "
            f"{record.config.get('data')!r} is not known"
        )
    return 1 / architecture.num_classes


def _mean_weights(runs: Sequence[Record], known: Weights) -> NDArray[np.float64] | None:
    """The weights of each block, a mean over modules, shape ``(seeds, blocks)``."""
    if any(record.run_id not in known for record in runs):
        return None
    columns = ds_net_of(runs[0]).blocks[0]
    order = [columns.index(name) for name in sorted(columns)]
    return np.stack([np.mean(known[record.run_id], axis=0)[order] for record in runs])


def _correlate(
    weights: NDArray[np.float64] | None, shapley: NDArray[np.float64]
) -> tuple[float, tuple[float, float]]:
    nothing = np.nan, np.nan
    if weights is None:
        return np.nan, nothing
    whole = float(spearman(weights.mean(axis=0)[None], shapley.mean(axis=0)[None])[0])
    if len(weights) < _MIN_SEEDS_OF_CORRELATION or np.isnan(whole):
        return whole, nothing
    half = _spread_over_halves(weights, shapley, whole)
    return whole, (max(-1.0, whole - half), min(1.0, whole + half))


def _spread_over_halves(
    weights: NDArray[np.float64], shapley: NDArray[np.float64], whole: float
) -> float:
    """Half the width of the 95 % interval of a correlation.

    Between few blocks it moves in steps. A bootstrap over few seeds has far too narrow intervals,
    and without one seed alone it often does not move at all; without half of them it does.

    Reference:
        Shao and Wu, "A general theory for jackknife variance estimation", 1989.
    """
    num_seeds = len(weights)
    num_left_out = num_seeds // 2
    seeds = np.tile(np.arange(num_seeds), (_NUM_RESAMPLES, 1))
    kept = np.random.default_rng(0).permuted(seeds, axis=1)[:, num_left_out:]
    found = spearman(weights[kept].mean(axis=1), shapley[kept].mean(axis=1))
    scale = (num_seeds - num_left_out) / num_left_out
    error = np.sqrt(scale * np.nanmean((found - whole) ** 2))
    return float(stats.t.ppf(0.975, num_seeds - 1) * error)


def draw_importance(importances: Sequence[BlockImportance]) -> Figure:
    """Draws Shapley values and leave-one-out at the left, learned weights at the right.

    A row for each way of training; the right panel is left out where no weights are known.
    """
    has_weights = any(each.weights is not None for each in importances)
    figure = create_figure(9.0 if has_weights else 5.4, 0.6 + 2.9 * len(importances))
    rows = figure.subplots(len(importances), 1 + has_weights, squeeze=False)
    for row, each in zip(rows, importances, strict=True):
        _draw_values(row[0], each)
        if has_weights:
            _draw_weights(row[1], each)
    figure.legend(*rows[0][0].get_legend_handles_labels(), **LEGEND_BELOW)
    return figure


def _draw_values(axes: Axes, found: BlockImportance) -> None:
    series = {
        "Shapley value": _estimates(found, found.shapley),
        "full set minus the set without the block, retrained": _estimates(
            found, found.leave_one_out
        ),
    }
    spread = describe_spread(series["Shapley value"])
    title = (
        f"{found.setting}; {spread}; Shapley values add up to the full set's accuracy minus chance "
        f"({found.baseline:.0%})"
    )
    draw_points(
        axes,
        found.blocks,
        series,
        y=f"{metric_label(found.attack)} accuracy",
        title=fill(title, 78),
    )
    axes.axhline(0, color="#8A9099", linewidth=0.8)


def _draw_weights(axes: Axes, found: BlockImportance) -> None:
    if found.weights is None:
        style_axes(axes, x="", y="", title="attention weights are not in these records")
        axes.set_axis_off()
        return
    low, high = found.interval
    known = (
        "" if np.isnan(low) else f", 95 % interval {low:.2f} to {high:.2f} (jackknife over seeds)"
    )
    title = (
        f"rank correlation with the Shapley value over {len(found.blocks)} blocks: "
        f"{found.correlation:.2f}{known}"
    )
    draw_points(
        axes,
        found.blocks,
        {"attention weight": _estimates(found, found.weights)},
        y="mean learned weight, full set",
        title=fill(title, 60),
    )


def _estimates(found: BlockImportance, values: NDArray[np.float64]) -> list[Estimate]:
    return [estimate_values(column, found.num_samples, found.run_ids) for column in values.T]
