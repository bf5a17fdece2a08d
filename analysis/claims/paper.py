"""The paper's empirical claims, each held against the runs that can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.claims.claim import Claim, Verdict
from analysis.claims.effects import (
    Effect,
    independent_effect,
    jackknife_effect,
    judge_equivalence,
    judge_gain,
    paired_effect,
)
from analysis.comparability import (
    ATTENTION_KEYS,
    TECHNICAL_KEYS,
    are_equally_large,
    check_evaluated_alike,
    check_one_number,
    ds_net_of,
    group_by,
    identity_without,
    options_agree,
)
from analysis.errors import IncomparableRunsError, MissingRunsError
from analysis.run_entries import RunEntry
from analysis.study_figures.block_families import (
    WIDTH_AND_BLOCKS,
    BlockFamily,
    collect_families,
    has_one_set,
)
from analysis.study_figures.estimates import describe_setting, ds_nets_of
from nasbench_at.config.architecture import Architecture
from nasbench_at.records import Record, compare_seeds
from nasbench_at.records.naming.labels import describe_blocks, start_label
from nasbench_at.records.naming.variants import name_variants

__all__ = ["RecordedClaim", "Unit", "judge_paper"]

Unit: TypeAlias = Literal["points", "points a block", "correlation", "weight"]

_BEST_DECAY = 5e-4
_KEPT = 2
_RISING_BLOCK = "residual"
"""The block whose weight rises in the last modules (Sec. 4.6)."""
_MIN_NETWORKS = 4
_ASKER = "a claim of the paper"


@dataclass(frozen=True)
class RecordedClaim(Claim):
    """A claim, held against runs of several seeds.

    Attributes:
        setting: On what the networks were trained and how attacked; empty without runs.
        comparison: What is compared with what; empty without runs.
        effect: How much it makes; None if that cannot be computed.
        margin: Below which an effect does not matter, in the effect's unit.
        unit: Of effect and margin: accuracies in points of percent, also a further block, one minus
            a correlation, or attention weights.
    """

    setting: str
    comparison: str
    effect: Effect | None
    margin: float
    unit: Unit


@dataclass(frozen=True)
class _Comparison:
    """What two kinds of runs say of a claim, not computed yet."""

    example: Record
    text: str
    measure: Callable[[], Effect]


@dataclass(frozen=True)
class _Statement:
    """A claim as the paper has it, and how it is tested.

    Attributes:
        source: Where the paper says it.
        text: What it says.
        judge: Decides by effect and margin.
        margin: Smallest effect that matters.
        unit: Of both.
        needs: Which runs tell.
        compare: Finds the comparisons among runs, under an attack.
    """

    source: str
    text: str
    judge: Callable[[Effect, float], Verdict]
    margin: float
    unit: Unit
    needs: str
    compare: Callable[[Sequence[RunEntry], str], Iterator[_Comparison]]


def judge_paper(entries: Sequence[RunEntry], attack: str = "pgd") -> list[RecordedClaim]:
    """Holds each empirical claim of the paper against recorded runs.

    Runs are compared that were trained alike but for what the claim is about, and evaluated under
    equal conditions; each way of training and each comparison is a claim of its own. Intervals are
    of 95 % each and not jointly: of many comparisons some miss the truth.

    Args:
        entries: Runs; only evaluated DS-Nets tell.
        attack: Whose accuracy is the robust one.

    Returns:
        At least one of each claim, in the paper's order.
    """
    return [claim for statement in _STATEMENTS for claim in _judge(statement, entries, attack)]


def _judge(
    statement: _Statement, entries: Sequence[RunEntry], attack: str
) -> Iterator[RecordedClaim]:
    make = partial(
        RecordedClaim,
        source=statement.source,
        statement=statement.text,
        margin=statement.margin,
        unit=statement.unit,
    )
    nothing = partial(make, verdict="cannot be told", setting="", comparison="", effect=None)
    try:
        found = list(statement.compare(entries, attack))
    except MissingRunsError:
        found = []
    except IncomparableRunsError as error:
        yield nothing(explanation=str(error))
        return
    if not found:
        yield nothing(explanation=f"missing: {statement.needs}")
    settings = _describe_settings([comparison.example for comparison in found], attack)
    for comparison, setting in zip(found, settings, strict=True):
        of_this = partial(make, setting=setting, comparison=comparison.text)
        try:
            effect = comparison.measure()
        except ValueError as error:
            yield of_this(verdict="cannot be told", effect=None, explanation=f"missing: {error}")
            continue
        verdict = statement.judge(effect, statement.margin)
        yield of_this(verdict=verdict, effect=effect, explanation=_explain(effect, verdict))


def _explain(effect: Effect, verdict: Verdict) -> str:
    design = {
        "paired": "paired over seeds",
        "independent": "runs not paired (Welch)",
        "jackknife": "each seed left out in turn",
    }[effect.design]
    return f"{design}; more seeds would tell" if verdict == "cannot be told" else design


def _describe_settings(examples: Sequence[Record], attack: str) -> list[str]:
    """How the networks of each comparison were trained and attacked; the networks not named."""
    if not examples:
        return []
    shared = WIDTH_AND_BLOCKS & examples[0].config.keys()
    network = {key: examples[0].config[key] for key in shared}
    configs = [{**record.config, **network} for record in examples]
    differ = len({identity_without(r, TECHNICAL_KEYS | WIDTH_AND_BLOCKS) for r in examples}) > 1
    names = name_variants(configs) if differ else [""] * len(examples)
    settings = (describe_setting(record, attack) for record in examples)
    return [", ".join(filter(None, pair)) for pair in zip(settings, names, strict=True)]


def _records(entries: Sequence[RunEntry], attack: str) -> list[Record]:
    records = [entry.record for entry in entries if entry.record is not None]
    return ds_nets_of(records, attack, _ASKER)


def _groups(records: Sequence[Record], varied: frozenset[str]) -> Iterator[list[Record]]:
    """Runs that differ in these keys alone, and in technical ones."""
    yield from group_by(records, lambda r: identity_without(r, TECHNICAL_KEYS | varied)).values()


def _networks(records: Sequence[Record]) -> list[list[Record]]:
    """Runs by network and training, a run a seed."""
    return list(_groups(records, frozenset()))


def _paired(first: Sequence[Record], second: Sequence[Record], attack: str) -> Effect:
    found = compare_seeds(first, second, attack)
    return paired_effect(found.differences, 2 * len(found.seeds))


def _is_uniform(network: Architecture) -> bool:
    """Whether equal, fixed weights are those of different blocks."""
    is_fixed = (network.attention.mode, network.attention.init) == ("fixed", "equal")
    return is_fixed and network.is_whole and len(network.all_blocks) > 1


def _learned_against_fixed(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    for group in _groups(_records(entries, attack), ATTENTION_KEYS):
        learned = [r for r in group if ds_net_of(r).is_searched and ds_net_of(r).is_whole]
        fixed = [r for r in group if _is_uniform(ds_net_of(r))]
        if learned and fixed:
            blocks = describe_blocks(ds_net_of(fixed[0]))
            yield _Comparison(
                fixed[0],
                f"learned minus fixed and equal weights of {blocks}",
                partial(_paired, learned, fixed, attack),
            )


def _different_against_same(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    for group in _groups(_records(entries, attack), WIDTH_AND_BLOCKS):
        mixed = _networks([r for r in group if _is_uniform(ds_net_of(r))])
        same = _networks([r for r in group if ds_net_of(r).is_same_block])
        for one in mixed:
            for other in same:
                networks = ds_net_of(one[0]), ds_net_of(other[0])
                is_part = networks[1].all_blocks <= networks[0].all_blocks
                alike = options_agree(one[0], other[0]) and are_equally_large(one[0], other[0])
                if not (is_part and alike):
                    continue
                names = " minus ".join(map(describe_blocks, networks))
                yield _Comparison(
                    one[0], f"{names}, equal weights", partial(_paired, one, other, attack)
                )


def _diversity(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    for family in collect_families(_records(entries, attack), attack, _ASKER):
        sizes = sorted({len(blocks) for blocks in family.runs})
        if len(sizes) < 2:
            continue
        yield _Comparison(
            family.records[0],
            f"for each further block, over {len(family.runs)} sets of {sizes[0]} to {sizes[-1]} of "
            f"{', '.join(family.blocks)}",
            partial(_slope_over_sizes, family),
        )


def _slope_over_sizes(family: BlockFamily) -> Effect:
    """The least-squares slope of accuracy over the number of blocks, seed by seed."""
    _check_balanced(family)
    accuracies = family.accuracies(family.attack)
    sizes = np.array([len(blocks) for blocks in accuracies], dtype=np.float64)
    centred = sizes - sizes.mean()
    slopes = centred @ np.stack([*accuracies.values()]) / (centred @ centred)
    return paired_effect(slopes, len(accuracies) * len(slopes))


def _check_balanced(family: BlockFamily) -> None:
    """Raises a ValueError unless sets of each size have each block equally often.

    Else the sizes would differ in which blocks there are, and not only in how many.
    """
    for size in sorted({len(blocks) for blocks in family.runs}):
        sets = [blocks for blocks in family.runs if len(blocks) == size]
        counts = {name: sum(name in blocks for blocks in sets) for name in family.blocks}
        if len(set(counts.values())) > 1:
            few = min(counts, key=counts.__getitem__)
            raise MissingRunsError(
                f"sets of {size} with {few}: each block must be in equally many sets of a size"
            )


def _pruning(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    for group in _groups(_records(entries, attack), WIDTH_AND_BLOCKS):
        pruned = [r for r in group if _is_pruned(ds_net_of(r))]
        searched = [r for r in group if has_one_set(ds_net_of(r))]
        for ours in _networks(searched):
            fitting = [r for r in pruned if _was_pruned_from(r, ours[0])]
            for is_zeroed, runs in group_by(fitting, lambda r: not ds_net_of(r).is_whole).items():
                form = "zeroed" if is_zeroed else "not built"
                yield _Comparison(
                    ours[0],
                    f"{describe_blocks(ds_net_of(ours[0]))} minus the top {_KEPT} of each module, "
                    f"retrained, the others {form}",
                    partial(_pruned_effect, ours, runs, attack),
                )


def _was_pruned_from(pruned: Record, whole: Record) -> bool:
    """Whether a pruned network can be of a searched one.

    Zeroed blocks are still there, in a network of the same width. A network without them names the
    blocks that are left alone, and is as large as the searched one.
    """
    part, network = ds_net_of(pruned), ds_net_of(whole)
    if not options_agree(pruned, whole) or network.max_blocks <= _KEPT:
        return False
    if not part.is_whole:
        return (part.blocks, part.stage_channels) == (network.blocks, network.stage_channels)
    return part.all_blocks <= network.all_blocks and are_equally_large(pruned, whole)


def _is_pruned(network: Architecture) -> bool:
    is_given = (network.attention.mode, network.attention.init) == ("fixed", "given")
    return is_given and set(network.num_kept) == {_KEPT}


def _pruned_effect(ours: Sequence[Record], pruned: Sequence[Record], attack: str) -> Effect:
    """Paired if each pruned network has a seed of its own, as each of the searched ones."""
    check_evaluated_alike([*ours, *pruned], [attack], _ASKER)
    check_one_number(ours)
    if len({r.config["seed"] for r in pruned}) == len(pruned):
        return _paired(ours, pruned, attack)
    return independent_effect(
        [r.accuracy(attack) for r in ours], [r.accuracy(attack) for r in pruned]
    )


def _starts(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    varied = ATTENTION_KEYS - {"attention", "attention_keep"}
    for group in _groups(_records(entries, attack), varied):
        learned = [r for r in group if ds_net_of(r).attention.mode == "learned"]
        starts = _networks([r for r in learned if ds_net_of(r).max_blocks > 1])
        normal = [runs for runs in starts if ds_net_of(runs[0]).is_searched]
        for usual in normal:
            blocks = describe_blocks(ds_net_of(usual[0]))
            for other in starts:
                if ds_net_of(other[0]).is_searched:
                    continue
                start = start_label(ds_net_of(other[0]).attention)
                yield _Comparison(
                    usual[0],
                    f"logits from {start} minus from normal, {blocks}",
                    partial(_paired, other, usual, attack),
                )


def _weight_decay(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    searched = [r for r in _records(entries, attack) if ds_net_of(r).is_searched]
    with_decay = [r for r in searched if r.config.get("weight_decay") is not None]
    for group in _groups(with_decay, frozenset({"weight_decay"})):
        by_decay = group_by(group, lambda r: float(r.config["weight_decay"]))
        best = next((runs for decay, runs in by_decay.items() if _is_best(decay)), [])
        for decay in sorted(decay for decay in by_decay if best and not _is_best(decay)):
            yield _Comparison(
                best[0],
                f"weight decay {_BEST_DECAY:g} minus {decay:g}, "
                f"{describe_blocks(ds_net_of(best[0]))}",
                partial(_paired, best, by_decay[decay], attack),
            )


def _is_best(decay: float) -> bool:
    return math.isclose(decay, _BEST_DECAY)


def _ranks(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    for group in _groups(_records(entries, attack), WIDTH_AND_BLOCKS):
        networks = _networks(group)
        if len(networks) >= _MIN_NETWORKS:
            yield _Comparison(
                group[0],
                f"1 minus the correlation of natural and robust ranks of {len(networks)} networks, "
                "corrected for the seeds' noise",
                partial(_rank_effect, networks, attack),
            )


def _rank_effect(networks: Sequence[Sequence[Record]], attack: str) -> Effect:
    runs = [record for network in networks for record in network]
    check_evaluated_alike(runs, ("natural", attack), _ASKER)
    for network in networks:
        check_one_number(network)
    seeds = sorted(set.intersection(*({r.config["seed"] for r in n} for n in networks)))
    by_seed = [{r.config["seed"]: r for r in network} for network in networks]
    natural, robust = (
        np.stack(
            [stats.rankdata([own[seed].accuracy(metric) for own in by_seed]) for seed in seeds]
        )
        if seeds
        else np.empty((0, len(networks)))
        for metric in ("natural", attack)
    )
    return jackknife_effect(
        lambda kept: 1 - _corrected_correlation(natural[kept], robust[kept]),
        len(seeds),
        len(seeds) * len(networks),
    )


def _corrected_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Correlation of two rankings without the noise of the seeds, which lowers it.

    Covariances over networks are taken between different seeds alone, whose noise is independent:
    that of one ranking with itself is then its variance without noise.

    Args:
        one: Ranks, shape ``(seeds, networks)``.
        other: Likewise.

    Returns:
        May be above 1 by chance; NaN where a ranking is nothing but noise.
    """
    pairs = list(permutations(range(len(one)), 2))
    if not pairs:
        return math.nan

    def covariance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
        centred = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
        product = np.matmul(*[c if i == 0 else c.T for i, c in enumerate(centred)])
        return float(np.mean([product[pair] for pair in pairs]))

    variances = covariance(one, one) * covariance(other, other)
    if min(covariance(one, one), covariance(other, other)) <= 0:
        return math.nan
    return covariance(one, other) / math.sqrt(variances)


def _depths(entries: Sequence[RunEntry], attack: str) -> Iterator[_Comparison]:
    weights = {e.run_id: e.attention[1] for e in entries if e.attention is not None}
    known = [r for r in _records(entries, attack) if r.run_id in weights]
    searched = [r for r in known if has_one_set(ds_net_of(r))]
    largest = max((ds_net_of(r).max_blocks for r in searched), default=0)
    for network in _networks(searched):
        blocks = ds_net_of(network[0]).block_set or ()
        if _RISING_BLOCK not in blocks or len(blocks) < max(2, largest):
            continue
        yield _Comparison(
            network[0],
            f"weight of {_RISING_BLOCK} among {len(blocks)} blocks, last third of the modules "
            "minus first",
            partial(_depth_effect, network, weights),
        )


def _depth_effect(
    network: Sequence[Record], weights: Mapping[str, tuple[tuple[float, ...], ...]]
) -> Effect:
    check_one_number(network)
    architecture = ds_net_of(network[0])
    column = architecture.blocks[0].index(_RISING_BLOCK)
    first, last = architecture.reduction_points
    rows = np.array([weights[record.run_id] for record in network])[:, :, column]
    return paired_effect(rows[:, last:].mean(axis=1) - rows[:, :first].mean(axis=1), len(network))


_STATEMENTS = (
    _Statement(
        "Fig. 4a",
        "learned attention weights are more robust than fixed, equal ones",
        judge_gain,
        0.01,
        "points",
        "one DS-Net with learned and with fixed, equal weights",
        _learned_against_fixed,
    ),
    _Statement(
        "Fig. 4b",
        "different blocks are more robust than as many of one block",
        judge_gain,
        0.01,
        "points",
        "DS-Nets of different blocks and of several of one block, with fixed, equal weights and "
        "equal parameters (within 10 %)",
        _different_against_same,
    ),
    _Statement(
        "Fig. 6",
        "more blocks to choose from are more robust at equal parameters",
        judge_gain,
        0.005,
        "points a block",
        "DS-Nets of a block set and of its subsets, with learned weights and equal parameters "
        "(within 10 %)",
        _diversity,
    ),
    _Statement(
        "Tab. 4",
        "keeping a module's two best blocks and retraining costs robustness",
        judge_gain,
        0.01,
        "points",
        "a DS-Net with learned weights, and as large ones with fixed, given weights of two blocks "
        "a module",
        _pruning,
    ),
    _Statement(
        "Fig. 5",
        "the initial distribution of the logits matters by at most 2 points",
        judge_equivalence,
        0.02,
        "points",
        "a DS-Net with learned weights from N(0, 1) and from another distribution",
        _starts,
    ),
    _Statement(
        "Tab. 6",
        f"a weight decay of {_BEST_DECAY:g} is the best",
        judge_gain,
        0.01,
        "points",
        f"a DS-Net trained with a weight decay of {_BEST_DECAY:g} and with another",
        _weight_decay,
    ),
    _Statement(
        "Tab. 1",
        "networks rank differently by robust than by natural accuracy",
        judge_gain,
        0.1,
        "correlation",
        f"{_MIN_NETWORKS} DS-Nets that were trained alike with three seeds",
        _ranks,
    ),
    _Statement(
        "Fig. 8",
        f"the learned weight of {_RISING_BLOCK} is larger in the last modules than in the first",
        judge_gain,
        0.05,
        "weight",
        f"DS-Nets of {_RISING_BLOCK} and other blocks with learning curves",
        _depths,
    ),
)
